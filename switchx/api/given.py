"""What callers give in the place of what is meant, told apart."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

from switchx.checks import is_whole
from switchx.errors import UserError
from switchx.settings import Settings


def listed(name: str, given: Iterable[Any]) -> list[Any]:
    """The same as a list; UserError for one text in its place, which would be its letters."""
    if isinstance(given, str | bytes | os.PathLike):
        raise UserError(f"{name}={given!r} is one alone: give a list, as [{given!r}].")
    if not isinstance(given, Iterable) or isinstance(given, Mapping):
        raise UserError(f"{name}={given!r} is no list: give one.")
    return list(given)


def listed_strs(name: str, given: Iterable[Any]) -> list[str]:
    """The same of names or paths, as text."""
    found = [as_python(item) for item in listed(name, given)]
    for item in found:
        if not isinstance(item, str):
            raise UserError(f"{name}={found!r} holds {item!r}: give each as a str.")
    return found


def path_str(name: str, given: Any) -> str:
    """A path as text."""
    path = as_python(given)
    if not isinstance(path, str):
        raise UserError(f"{name}={path!r} is no path: give a str or a Path.")
    return path


def step_number(name: str, given: Any) -> int | None:
    """A step, or None."""
    step = as_python(given)
    if step is not None and not is_whole(step):
        raise UserError(f"{name}={step!r} is no step: give a whole number, or None.")
    return step


def utf8_text(given: str) -> str:
    """The same without lone surrogates, which no UTF-8 can hold: "?", as training reads them."""
    if not isinstance(given, str):
        raise UserError(f"{given!r} is no text: give a str.")
    return given.encode("utf-8", "replace").decode()


def as_python(value: Any) -> Any:
    """A value as Python's own types have it: config.gin is written as these are shown.

    np.float64(0.1) is a float that is shown otherwise; NumPy's other numbers, JAX's, and paths are
    none of the types that settings have.
    """
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {as_python(key): as_python(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return (list if isinstance(value, list) else tuple)(map(as_python, value))
    return as_python(value.tolist()) if hasattr(value, "tolist") else value


def configured(given: Any) -> Settings:
    """The same; UserError for what no `switchx.configure` made."""
    if isinstance(given, Settings):
        return given
    raise UserError(
        f"{given!r:.100} is no configuration: give what switchx.configure returns, as of "
        "switchx.configure(['runs/mine/config.gin'])."
    )
