"""The tasks' scores over a run: the last of each, and the best, which need not be of one step."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

_TASKS, _FIELD = "validation/", "score/"


class Peak(NamedTuple):
    """A score at its highest.

    Attributes:
      task: its name, "all tasks" where it is an average.
      last, last_step: the newest value that is there.
      best, step: the highest, and where it was first.
    """

    task: str
    metric: str
    last: float
    last_step: int
    best: float
    step: int


def peaks(rows: Iterable[Mapping[str, Any]]) -> list[Peak]:
    """Of the rows of metrics.jsonl: each score's peak, tasks in their order, averages last."""
    curves: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for row in rows:
        split = row["split"]
        if split != "validation" and not split.startswith(_TASKS):
            continue
        for field, value in row.items():
            if field.startswith(_FIELD) and value is not None:
                key = split.removeprefix(_TASKS), field.removeprefix(_FIELD)
                curves.setdefault(key, []).append((row["step"], value))
    ordered = sorted(curves.items(), key=lambda item: item[0][0] == "validation")
    return [_peak(split, name, curve) for (split, name), curve in ordered]


def _peak(split: str, name: str, curve: list[tuple[int, float]]) -> Peak:
    step, best = max(curve, key=lambda point: (point[1], -point[0]))
    last_step, last = curve[-1]
    task = "all tasks" if split == "validation" else split
    return Peak(task, name, last, last_step, best, step)
