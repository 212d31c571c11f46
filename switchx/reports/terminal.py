"""A report as a person reads it on a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from switchx import terminal
from switchx.errors import UserError
from switchx.reports.runs import LeftOut
from switchx.reports.tables import Table, tables

_MOST = 3  # runs that are left out, of which each is named
_SHOWN = (
    "differences",
    "equal-steps",
    "losses",
    "speed-ups",
    "over-larger",
    "tasks-together",
    "time",
    "laws",
)


def lines(document: Mapping[str, Any]) -> list[str]:
    """The tables of groups, and what is left out."""
    found = []
    for table in tables(document):
        if table.id in _SHOWN:
            found += ["", table.title, *_aligned(table)]
    left_out = [LeftOut(one["name"], one["why"]) for one in document["left_out"] if one["is_run"]]
    if left_out:
        found += ["", f"left out: {_named(left_out)}"]
    return found[1:]


def nothing_to_report(where: str, left_out: Sequence[LeftOut]) -> UserError:
    """Why a report would be empty."""
    if not left_out:
        return UserError(f"{where} has no points, so there is nothing to report: plan it first.")
    return UserError(
        f"{where} has no finished point to report: {_named(left_out)}. See to its points with "
        "`switchx sweep status`."
    )


def _aligned(table: Table) -> list[str]:
    rows = [table.head, *([cell.text for cell in row] for row in table.rows)]
    return terminal.table(rows)


def _named(left_out: Sequence[LeftOut]) -> str:
    named = "; ".join(f"{one.name}: {one.why}" for one in left_out[:_MOST])
    more = len(left_out) - _MOST
    return f"{named}; and {more} more" if more > 0 else named
