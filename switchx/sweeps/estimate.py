"""How long the rest of a sweep will take, from what its points took so far."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from switchx.sweeps.folder import Point, SweepFolder
from switchx.sweeps.states import State, States


@dataclasses.dataclass(frozen=True)
class Running:
    """How far a point is that somebody works on.

    Attributes:
      worker: who.
      step: steps done; None before the first.
      steps_per_second: of its last row of metrics.
      loss: of the same.
    """

    worker: str
    step: int | None = None
    steps_per_second: float | None = None
    loss: float | None = None


def work_of(point: Point, step: int | None = None) -> float:
    """FLOPs that a point takes from a step on: of its own, without what it has of another."""
    began = point.fork.step if point.fork else 0
    left = point.steps - max(step or 0, began)
    return max(point.flops, 1) * max(left, 0) / max(point.steps, 1)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What is left of a sweep.

    Attributes:
      seconds_left: with as many workers as are at work now, one at least; None where no rate is
        known yet.
    """

    seconds_left: float | None

    @classmethod
    def of(
        cls, folder: SweepFolder, states: Mapping[str, State], running: Mapping[str, Running]
    ) -> "Estimate":
        """By FLOPs: of done points with all that they took, else of running ones."""
        by = States(folder)
        rate = _rate_of_done(folder, states) or _rate_of_running(folder, running)
        left = sum(
            work_of(point, running[point.name].step if point.name in running else None)
            for point in folder.points
            if states[point.name].done is None and not by.failed(states[point.name])
        )
        return cls(None if rate is None else left / rate / max(len(running), 1))


def _rate_of_done(folder: SweepFolder, states: Mapping[str, State]) -> float | None:
    """FLOPs a second of one worker."""
    work, seconds = 0.0, 0.0
    for point in folder.points:
        took = _seconds(states[point.name].done or {})
        if took:
            work, seconds = work + work_of(point), seconds + took
    return work / seconds if seconds else None


def _rate_of_running(folder: SweepFolder, running: Mapping[str, Running]) -> float | None:
    rates = [
        point.flops / point.steps * (running[point.name].steps_per_second or 0.0)
        for point in folder.points
        if point.name in running and point.steps and running[point.name].steps_per_second
    ]
    return sum(rates) / len(rates) if rates else None


def _seconds(done: Mapping[str, Any]) -> float:
    found = [done.get(name) for name in ("seconds", "overhead_seconds")]
    return sum(value for value in found if isinstance(value, int | float))
