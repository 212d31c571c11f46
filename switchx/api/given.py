"""What callers give in the place of what is meant, told apart."""

from collections.abc import Sequence

from switchx.errors import UserError


def listed(name: str, given: Sequence[str]) -> list[str]:
    """The same as a list; UserError for one text in its place, which would be its letters."""
    if isinstance(given, str):
        raise UserError(f"{name}={given!r} is one alone: give a list, as [{given!r}].")
    return list(given)


def utf8_text(given: str) -> str:
    """The same without lone surrogates, which no UTF-8 can hold: "?", as training reads them."""
    if not isinstance(given, str):
        raise UserError(f"{given!r} is no text: give a str.")
    return given.encode("utf-8", "replace").decode()
