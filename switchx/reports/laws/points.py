"""The points a law is fitted to: which count, which are left out and why, are they enough."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from switchx.errors import UserError

# Variables whose logs vary less apart than this share of what they vary together are one variable:
# sweeps meet a budget to about a hundredth.
_APART = 0.01


class TooFewPointsError(UserError):
    """A law has more coefficients than these points determine.

    Attributes:
      needed: points, or different values of one variable.
      there: how many there are.
      of: what is counted: "points", a variable's name, or "directions in which ... vary".
    """

    def __init__(self, form: str, needed: int, there: int, of: str = "points"):
        self.needed, self.there, self.of = needed, there, of
        counted = of if " " in of or of == "points" else f"different values of {of}"
        super().__init__(
            f"{of}={there} {'is' if there == 1 else 'are'} too few for the law {form}: it needs at "
            f"least {needed} {counted}."
        )


@dataclass(frozen=True)
class LeftOut:
    """A point that no law is fitted to.

    Attributes:
      point: its number in the arrays given, from 0.
      why: a phrase for people.
    """

    point: int
    why: str


def usable(
    columns: Mapping[str, np.ndarray], loss_P: np.ndarray, drop_highest: int = 0
) -> tuple[np.ndarray, tuple[LeftOut, ...]]:
    """The numbers of the points that count, and the others.

    Left out are points with a loss or variable that is not a positive finite number, a point equal
    to an earlier one in every column (the same run, named twice), and of the rest the
    `drop_highest` with the highest losses (as 2404.10102 leaves out 5 of Chinchilla's 245, runs too
    short for the law).

    Raises:
      UserError: columns of different lengths.
    """
    rows = {"loss": np.asarray(loss_P, float)} | {
        k: np.asarray(v, float) for k, v in columns.items()
    }
    lengths = {name: len(column) for name, column in rows.items()}
    if len(set(lengths.values())) > 1:
        raise UserError(f"columns={lengths} differ in length: give each run a value of each.")
    left: dict[int, str] = {}
    first: dict[tuple[float, ...], int] = {}
    for point in range(lengths["loss"]):
        row = tuple(float(column[point]) for column in rows.values())
        wrong = [name for name, x in zip(rows, row, strict=True) if not (np.isfinite(x) and x > 0)]
        if wrong:
            left[point] = f"{' and '.join(wrong)} not a positive finite number"
        elif first.setdefault(row, point) != point:
            left[point] = f"the same in every column as point {first[row]}"
    kept = [point for point in range(lengths["loss"]) if point not in left]
    highest = sorted(kept, key=lambda point: (-rows["loss"][point], point))[:drop_highest]
    left |= dict.fromkeys(highest, f"among the {drop_highest} highest losses")
    used = np.array([point for point in kept if point not in highest], int)
    return used, tuple(LeftOut(point, left[point]) for point in sorted(left))


def require(
    form: str, columns: Mapping[str, np.ndarray], parameters: int, distinct: Mapping[str, int]
) -> None:
    """Refuses points that do not determine a law.

    These are fewer than parameters and one, too few different values of a variable, or variables
    that vary together: at one budget, or at D = 20 N, nothing tells N's part from D's.

    Raises:
      TooFewPointsError
    """
    there = len(next(iter(columns.values())))
    if there < parameters + 1:
        raise TooFewPointsError(form, parameters + 1, there)
    for name, needed in distinct.items():
        values = len(np.unique(columns[name]))
        if values < needed:
            raise TooFewPointsError(form, needed, values, name)
    logs_PV = np.log(np.stack(list(columns.values()), axis=1))
    spread_V = np.linalg.svd(logs_PV - logs_PV.mean(axis=0), compute_uv=False)
    directions = int(np.sum(spread_V > _APART * spread_V[0]))
    if directions < len(columns):
        of = f"directions in which {' and '.join(columns)} vary"
        raise TooFewPointsError(form, len(columns), directions, of)
