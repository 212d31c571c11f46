"""What a row of the table can say of a parameter of T5X."""

import dataclasses
from collections.abc import Callable
from typing import Any


class DiffersError(Exception):
    """A value that has no equal here; the words say why."""


class _Unset:
    def __repr__(self) -> str:
        return "unset"


UNSET = _Unset()  # of a parameter without a default


@dataclasses.dataclass(frozen=True)
class Row:
    """One parameter.

    Attributes:
      ours: the macro or parameter that has its value here; {stack} is encoder or decoder.
      default: what T5X takes where nothing is said.
      of: makes the value here of the value there, or raises `DiffersError`.
      accepted: values that mean what switchx does anyway.
      why: what is said of others.
      refused: whether others would change what is trained.
    """

    ours: str | None = None
    default: Any = UNSET
    of: Callable[[Any], Any] | None = None
    accepted: tuple = ()
    why: str | None = None
    refused: bool = False


def same(ours: str, default: Any = UNSET, of: Callable[[Any], Any] | None = None) -> Row:
    """Its equal here."""
    return Row(ours=ours, default=default, of=of)


def only(*accepted: Any, why: str, ours: str | None = None) -> Row:
    """Has no equal: another value than these would change what is trained.

    Where `ours` is given, whoever sets that has decided what is trained.
    """
    return Row(ours=ours, accepted=accepted, why=why, refused=True)


def aside(why: str, *accepted: Any) -> Row:
    """Has no equal, and does not change what is trained; these values need no word."""
    return Row(accepted=accepted, why=why)


QUIET = Row()  # a part whose own parameters count, or something that is without meaning here


def quiet(names: str) -> dict[str, Row]:
    """`QUIET` for each of several."""
    return dict.fromkeys(names.split(), QUIET)


def by_rule(default: Any = UNSET) -> Row:
    """Has its equal together with others: `rules` has the function."""
    return Row(default=default)
