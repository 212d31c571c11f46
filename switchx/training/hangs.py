"""Says where a run hangs: what it waits for, and where each of its threads stands."""

import collections
import contextlib
import faulthandler
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import jax

from switchx import storage
from switchx.terminal import remark

# What a run does, as the beginning of the sentence that says it does not come to an end.
STEP = "no step has ended"
EVALUATION = "an evaluation has not ended"
SCORING = "the scoring of a task has not ended"
SAVE = "a save has not ended"
PROFILE = "a profile has not been written"
ROLLBACK = "the way back to a checkpoint has not ended"

TIMES = 20  # the usual duration: longer is a hang
LEAST = 300.0  # seconds, below which nothing is
FIRST = 3600.0  # seconds, for what was hardly done before in this process: it may have to compile
_ENOUGH, _RECENT = 3, 50  # durations, of which the median is the usual one
_KEPT = 10  # hangs of which the file tells
_WRITE_SECONDS = 60.0  # where the run's own file system hangs, the stacks go elsewhere


class HangWatch:
    """Within, a thread looks whether what was begun comes to an end. It never ends anything itself.

    Nothing that only looks like a hang is one: the clock is that of the machine's own running, and
    a process that was stopped has not waited. Each hang is said once.

    Args:
      clock: seconds, monotone.
    """

    def __init__(self, model_dir: str | Path, clock: Callable[[], float] = time.monotonic):
        self._path = storage.as_path(model_dir) / f"stacks.{jax.process_index()}.txt"
        self._clock, self._interval = clock, LEAST / 20
        self._recent: dict[str, collections.deque[float]] = {}
        self._begun: tuple[str, float] | None = None  # a new one for each thing that is begun
        self.part = ""  # of what was begun: what it is at
        self._seen: tuple[str, float] | None = None
        self._waited, self._looked = 0.0, clock()
        self._said: collections.deque[str] = collections.deque(maxlen=_KEPT)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="hang watch", daemon=True)

    def __enter__(self) -> "HangWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(self._interval)  # no longer: what it writes to may hang
        faulthandler.cancel_dump_traceback_later()

    def begin(self, what: str, part: str = "") -> None:
        """What was begun before has ended, and this begins."""
        now = self._clock()
        if self._begun is not None:
            before, began = self._begun
            recent = self._recent.setdefault(before, collections.deque(maxlen=_RECENT))
            recent.append(now - began)
        self.part, self._begun = part, (what, now)

    def _watch(self) -> None:
        while not self._over.wait(self._interval):
            self._await_python()
            self._look()

    def _await_python(self) -> None:
        """Has faulthandler's own thread dump all stacks, should this one not come here again.

        That one needs no lock of the interpreter, which a hang in a library may hold.
        """
        with contextlib.suppress(AttributeError, OSError, ValueError):  # no file behind the stream
            faulthandler.dump_traceback_later(2 * LEAST, file=sys.stderr)

    def _look(self) -> None:
        """Says so if what was begun has not ended for too long."""
        now, begun = self._clock(), self._begun
        # A process that was stopped, or starved, comes here late: it has not waited all that time.
        waited = self._waited + min(now - self._looked, 2 * self._interval)
        self._waited, self._looked = (waited if begun is self._seen else 0.0), now
        self._seen = begun
        if begun is None:
            return
        usual = self._usual(begun[0])
        limit = FIRST if usual is None else max(LEAST, TIMES * usual)
        if self._waited > limit:
            self._say(begun[0], self._waited, usual)
            self._waited = -float("inf")  # once

    def _usual(self, what: str) -> float | None:
        recent = list(self._recent.get(what, ()))
        return statistics.median(recent) if len(recent) >= _ENOUGH else None

    def _say(self, what: str, waited: float, usual: float | None) -> None:
        text = f"{what} for {_words(waited)}"
        if usual:
            text += f", {waited / usual:,.0f} times the usual {_words(usual)}"
        if self.part:
            text += f": {self.part}"
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        self._said.append(f"{when}: {text}\n\n{_stacks()}\n")
        host = f"process {jax.process_index()}: " if jax.process_count() > 1 else ""
        path = self._write("".join(self._said))
        remark(f"{host}{text}; every thread's stack is in {path}, and the run waits on")

    def _write(self, content: str) -> Path:
        try:
            storage.in_time(lambda: storage.write_whole(self._path, content), _WRITE_SECONDS)
            return self._path
        except Exception:  # what hangs may be just that
            with tempfile.NamedTemporaryFile(
                "w", prefix="switchx.", suffix=f".{self._path.name}", delete=False
            ) as file:
                file.write(content)
            return Path(file.name)


def _stacks() -> str:
    """Where each thread stands, the last call first."""
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        text = file.read().decode(errors="replace")
    for thread in threading.enumerate():
        number = f"hread 0x{thread.ident or 0:016x}"
        text = text.replace(number, f"{number}, {thread.name},")
    return text


def _words(seconds: float) -> str:
    if seconds >= 120:
        return f"{seconds / 60:,.0f} min"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
