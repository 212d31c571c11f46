"""What is done, running, failed and left of a sweep, read from its folder alone: no checkpoint.

Imports nothing heavy.
"""

import dataclasses
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from switchx import storage
from switchx.sweeps.claims import EXPIRY, numbers
from switchx.sweeps.estimate import Estimate, Running
from switchx.sweeps.folder import Point, SweepFolder
from switchx.sweeps.states import State, States
from switchx.terminal import clock, table

DONE, RUNNING, FAILED, WAITING = "done", "running", "failed", "waiting"
_AT_ONCE = 16  # requests to a bucket


@dataclasses.dataclass(frozen=True)
class PointStatus:
    """How one point stands.

    Attributes:
      state: "done", "running", "failed" (for good) or "waiting".
      worker: who did it, or does it.
      step: steps done, as its metrics say; None where none is known.
      loss: the last one measured, of the validation split once the point is done.
      seconds: of training, once it is done.
      why: of a failed one and of one that will be tried again, why the last try failed; else what
        it waits for.
      tries: that failed.
    """

    point: Point
    state: str
    worker: str = ""
    step: int | None = None
    loss: float | None = None
    seconds: float | None = None
    why: str = ""
    tries: int = 0

    def form(self) -> dict[str, Any]:
        """For JSON."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        point = values.pop("point")
        own = {"name": point.name, "varied": dict(point.varied), "steps": point.steps}
        return {**own, **values}

    def row(self) -> tuple[str, ...]:
        """For the table."""
        steps = f"{'-' if self.step is None else f'{self.step:,}'} of {self.point.steps:,}"
        return (
            self.point.label or self.point.name,
            self.state,
            steps if self.state in (DONE, RUNNING) else "",
            "" if self.loss is None else f"{self.loss:.4f}",
            "" if self.seconds is None else clock(self.seconds),
            self.why or (self.worker if self.state == RUNNING else ""),
        )


@dataclasses.dataclass(frozen=True)
class Status:
    """How a sweep stands.

    Attributes:
      points: in the sweep's order.
      seconds_left: with as many workers as are at work; None where it is not known.
    """

    folder: SweepFolder
    points: tuple[PointStatus, ...]
    seconds_left: float | None

    @classmethod
    def read(cls, states: States) -> "Status":
        """Of the sweep of these states, as it is now.

        Raises:
          UserError: the sweep's folder cannot be read.
        """
        folder, found = states.folder, states.read()

        def of(point: Point) -> PointStatus:
            return _status(states, point, found)

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            points = list(pool.map(of, folder.points))
        running = {p.point.name: _running(folder, p) for p in points if p.state == RUNNING}
        points = [_with(p, running.get(p.point.name)) for p in points]
        left = Estimate.of(folder, found, running).seconds_left
        return cls(folder, tuple(points), left)

    @property
    def over(self) -> bool:
        """Whether nothing more will come of it."""
        return all(point.state in (DONE, FAILED) for point in self.points)

    def counts(self) -> dict[str, int]:
        """Points by state."""
        counted = Counter(point.state for point in self.points)
        return {state: counted[state] for state in (DONE, RUNNING, FAILED, WAITING)}

    def summary(self) -> str:
        """One line."""
        counts = self.counts()
        parts = [f"{counts[DONE]} of {len(self.points)} points done"]
        parts += [f"{counts[s]} {s}" for s in (RUNNING, FAILED, WAITING) if counts[s]]
        line = ", ".join(parts)
        return line if not self.seconds_left else f"{line}; about {clock(self.seconds_left)} left"

    def lines(self) -> list[str]:
        """The table, and the line below it."""
        head = ("point", "state", "step", "loss", "time", "")
        return [*table([head, *(point.row() for point in self.points)]), "", self.summary()]

    def form(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.folder.name,
            "sweep_dir": str(self.folder.path),
            **self.counts(),
            "seconds_left": self.seconds_left,
            "points": [point.form() for point in self.points],
        }

    def changes(self, before: "Status | None") -> Sequence[str]:
        """A line on each point that is in another state than it was."""
        earlier = {p.point.name: (p.state, p.tries) for p in before.points} if before else {}
        return [
            _change(point)
            for point in self.points
            if earlier.get(point.point.name, (WAITING, 0)) != (point.state, point.tries)
        ]


def _change(point: PointStatus) -> str:
    said = f"{point.point.name} is {point.state}"
    if point.state == DONE:
        loss = "" if point.loss is None else f"loss {point.loss:.4f} "
        return f"{said}: {loss}after {point.point.steps:,} steps"
    return f"{said}: {point.why}" if point.why else said


def _status(states: States, point: Point, all_states: Mapping[str, State]) -> PointStatus:
    state = all_states[point.name]
    tries = len(state.failures)
    if state.done is not None:
        by, loss, seconds = (state.done.get(key) for key in ("worker", "loss", "seconds"))
        return PointStatus(point, DONE, str(by), point.steps, loss, seconds, tries=tries)
    why = states.why(point, state)
    if states.failed(state):
        return PointStatus(point, FAILED, why=why, tries=tries)
    holder = _holder(states.folder, point) if state.claimed else None
    if holder is not None:
        return PointStatus(point, RUNNING, holder, why=why, tries=tries)
    trunk = all_states.get(point.fork.point) if point.fork else None
    if point.fork and trunk is not None and trunk.done is None and not why:
        why = f"begins at step {point.fork.step} of {point.fork.point}"
    return PointStatus(point, WAITING, why=why, tries=tries)


def _holder(folder: SweepFolder, point: Point) -> str | None:
    """Who works on it; None where that has ended, or is silent for as long as a dead one."""
    own = folder.state_directory(point)
    number = max(numbers(storage.names_in(own, "SWEEP_DIR")), default=0)
    said = storage.record_of(storage.read_if_there(own / f"claim.{number}", "SWEEP_DIR"))
    written = said.get("time")
    if said.get("over") or storage.is_gone(said) or not isinstance(written, int | float):
        return None
    # By the clocks of two machines, which may differ: a worker decides otherwise.
    return str(said.get("process", "")) if time.time() - written < 2 * EXPIRY else None


def _running(folder: SweepFolder, status: PointStatus) -> Running:
    """By its last row of training. `training.run_reader` would bring in all that trains."""
    path = folder.run_directory(status.point) / "metrics.jsonl"
    content = storage.read_if_there(path, "SWEEP_DIR") or b""
    for line in reversed(content.splitlines()):
        row = storage.record_of(line)  # {} of one that is not finished
        if row.get("split") == "train":
            known = (row.get(name) for name in ("step", "steps_per_second", "loss"))
            return Running(status.worker, *known)
    return Running(status.worker)


def _with(status: PointStatus, running: Running | None) -> PointStatus:
    if running is None:
        return status
    return dataclasses.replace(status, step=running.step, loss=running.loss)
