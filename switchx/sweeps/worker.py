"""Works through a sweep's points, one after the other, in one process on each host of a job."""

import contextlib
import dataclasses
import gc
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Protocol

from switchx import hosts, storage
from switchx.errors import RunError, UserError, first_line
from switchx.sweeps.claims import Claim
from switchx.sweeps.desk import POLL, Desk
from switchx.sweeps.estimate import Estimate
from switchx.sweeps.folder import Point, SweepFolder
from switchx.terminal import clock

_WAIT, _OVER = "wait", "over"
_GO_ON = "`switchx sweep run` goes on from there"
_AGREE_SECONDS = 120.0  # in which hosts that had the same point come to its end


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a point's run.

    Attributes:
      stopped_by: the signal that ended it early, or None.
      step: steps done.
      loss: of its last evaluation.
      seconds: of its training, in all of its starts.
      overhead_seconds: of this start, beside its training.
    """

    stopped_by: signal.Signals | None
    step: int
    loss: float | None
    seconds: float
    overhead_seconds: float


class Runner(Protocol):
    """Runs a point to its end; see `running`."""

    def __call__(self, point: Point) -> Outcome: ...


def work(
    folder: SweepFolder,
    desk: Desk | None,
    run: Runner,
    worker: str,
    say: Callable[[str], None],
) -> signal.Signals | None:
    """Works until there is nothing more to do; every host of a job calls this alike.

    Args:
      desk: of the first host, which claims the points; None on the others.
      worker: this one's name, for those who read the sweep's folder.

    Returns:
      the signal by which it was asked to stop, or None. What it held is given back.

    Raises:
      UserError, RunError: the sweep's folder cannot be read or written, or a host was lost.
      SystemExit, KeyboardInterrupt: a signal came while nothing could be saved.
    """
    points = {point.name: point for point in folder.points}
    with _stopping():
        while True:
            had = desk.next() if desk else None
            idle = _OVER if desk and desk.over() else _WAIT
            word = hosts.announced(had[0].name if had else idle)
            stopped = hosts.asked_to_stop()
            if stopped or word == _OVER:
                if had:
                    had[1].give_back()
                return signal.SIGTERM if stopped else None
            if word == _WAIT:
                time.sleep(POLL)
                continue
            part = _Part(desk, had[1] if had else None, worker, say)
            ended = part.work_on(points[word], run)
            hosts.barrier("done with a point", _AGREE_SECONDS)
            if ended is not None:
                return ended


class _Part:
    """One point's turn, on one host; only the first one holds its claim and writes."""

    def __init__(
        self, desk: Desk | None, claim: Claim | None, worker: str, say: Callable[[str], None]
    ) -> None:
        self._desk, self._claim, self._worker, self._say = desk, claim, worker, say

    def work_on(self, point: Point, run: Runner) -> signal.Signals | None:
        self._introduce(point)
        try:
            return self._worked_on(point, run)
        finally:  # also where it could not be written down what became of it
            if self._claim:
                self._claim.give_back()
            gc.collect()  # a run's arrays may hang in a circle, on the device of the next one

    def _worked_on(self, point: Point, run: Runner) -> signal.Signals | None:
        try:
            outcome = run(point)
        except storage.InUseError as error:
            if self._desk:
                self._desk.busy(point, str(error))
        except Exception as error:
            self._failed(point, error)
        except BaseException:
            self._say(f"{point.name} is left as it was last saved; {_GO_ON}")
            raise
        else:
            if outcome.stopped_by is not None:
                self._say(
                    f"{point.name} is stopped at step {outcome.step:,} of {point.steps:,}; {_GO_ON}"
                )
                return outcome.stopped_by
            self._done(point, outcome)
        return None

    def _introduce(self, point: Point) -> None:
        if self._desk:
            number, of = self._desk.rank(point) + 1, len(self._desk.folder.points)
            self._say(
                f"point {number} of {of}: {point.label} ({point.name}), {point.steps:,} steps"
            )

    def _done(self, point: Point, outcome: Outcome) -> None:
        if not self._desk:
            return
        facts = {
            "steps": outcome.step,
            "seconds": round(outcome.seconds, 3),
            "overhead_seconds": round(outcome.overhead_seconds, 3),
            # Of eight digits, as in metrics.jsonl: a run that was done before is known from there.
            "loss": None if outcome.loss is None else float(f"{outcome.loss:.8g}"),
            **self._by(),
        }
        self._desk.done(point, facts)
        states = self._desk.states.read()
        done = sum(state.done is not None for state in states.values())
        left = Estimate.of(self._desk.folder, states, {}).seconds_left
        self._say(
            f"{point.name} is done: loss {outcome.loss or float('nan'):.4f} after "
            f"{outcome.step:,} steps in {clock(outcome.seconds)}; {done} of {len(states)} points"
            + (f", about {clock(left)} left for one worker" if left else "")
        )

    def _failed(self, point: Point, error: Exception) -> None:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        if not isinstance(error, UserError | RunError):
            why = f"{type(error).__name__}: {first_line(error)}"
        if self._desk:
            self._desk.failed(point, {"why": why, **self._by()})

    def _by(self) -> dict[str, Any]:
        return {"worker": self._worker, "time": round(time.time(), 3)}


@contextlib.contextmanager
def _stopping() -> Iterator[None]:
    """Within, SIGTERM and SIGHUP raise SystemExit where no run notes them (`Interruption`).

    In a job of several hosts they are JAX's, which tells all of them.
    """
    import jax

    if jax.process_count() > 1:
        yield
        return
    before: dict[signal.Signals, Any] = {}
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup sets it
            before[number] = signal.signal(number, _leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)
