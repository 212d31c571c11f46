"""How long points take, as those that are done tell."""

import dataclasses
import statistics
from collections.abc import Sequence

from switchx import storage
from switchx.sweeps.folder import Point, SweepFolder
from switchx.sweeps.points import Resolved
from switchx.sweeps.states import States
from switchx.training.config import RunConfig


@dataclasses.dataclass(frozen=True)
class Time:
    """Seconds of a point's training, and what tells them: 'done', 'same' (a point of the same
    program that is done), 'rate' (FLOPs a second of those that are done), 'likely' (a plan of its
    compiled program) or 'bound' (its device's).
    """

    seconds: float
    told_by: str


def told(
    folder: SweepFolder, resolved: Sequence[Resolved], programs: Sequence[RunConfig]
) -> list[Time | None]:
    """The time of each point, where one that is done tells it.

    Args:
      programs: of the points, equal where they compile the same step.
    """
    done = done_seconds(folder)
    per_step: dict[RunConfig, float] = {}
    rates = []
    for each, program in zip(resolved, programs, strict=True):
        seconds = done.get(each.point.name)
        if seconds:
            per_step[program] = seconds / own_steps(each.point)
            rates.append(each.point.flops / each.point.steps / per_step[program])
    rate = statistics.median(rates) if rates else None

    def of(point: Point, program: RunConfig) -> Time | None:
        if point.name in done:
            return Time(done[point.name], "done")
        if program in per_step:
            return Time(own_steps(point) * per_step[program], "same")
        if rate is not None:
            return Time(own_steps(point) * point.flops / point.steps / rate, "rate")
        return None

    return [of(each.point, program) for each, program in zip(resolved, programs, strict=True)]


def own_steps(point: Point) -> int:
    """Steps that a point makes itself."""
    return point.steps - (point.fork.step if point.fork else 0)


def done_seconds(folder: SweepFolder) -> dict[str, float]:
    """Seconds that each point trained which is done, by its name."""
    if not storage.names_in(folder.path / "state", "SWEEP_DIR"):
        return {}
    told = {name: state.done or {} for name, state in States(folder).read().items()}
    found = {name: done.get("seconds") for name, done in told.items()}
    return {name: value for name, value in found.items() if isinstance(value, int | float)}
