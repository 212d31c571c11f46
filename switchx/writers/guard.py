"""What keeps a writer's troubles from the run: its errors, and the time that it takes."""

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from switchx.errors import first_line
from switchx.writers.writer import Writer

MOST_WAITING = 1000  # calls; a writer so far behind hangs


class Guarded:
    """Calls a writer until it fails once, which is said in a line; then no more."""

    def __init__(self, name: str, writer: Writer, say: Callable[[str], None]):
        self.name, self.off = name, False
        self._writer, self._say = writer, say

    def call(self, method: str, *args: Any) -> None:
        """Calls a method of the writer; raises nothing that it raises."""
        if self.off:
            return
        try:
            getattr(self._writer, method)(*args)
        except (Exception, SystemExit) as error:
            self.switch_off(f"{type(error).__name__}: {first_line(error)}")
            if method != "close":
                with contextlib.suppress(Exception, SystemExit):
                    self._writer.close("failed")

    def switch_off(self, why: str) -> None:
        """No call reaches the writer any more."""
        if not self.off:
            self.off = True
            self._say(f"switchx: the metric writer {self.name} is off, and the run goes on ({why})")


class Queued:
    """The same in a thread of the writer's own, so that the caller waits at the end alone."""

    def __init__(self, guarded: Guarded, give_up: Callable[[], None] = lambda: None):
        """`give_up` ends what a writer that hangs still does."""
        self._guarded, self._give_up = guarded, give_up
        self._left = False  # behind, in whatever it hangs in
        self._calls: queue.Queue[tuple[Any, ...]] = queue.Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._work, name=guarded.name, daemon=True)
        self._thread.start()

    def call(self, method: str, *args: Any) -> None:
        """Leaves the call to the thread."""
        try:
            self._calls.put_nowait((method, *args))
        except queue.Full:
            self._hangs(f"it is {MOST_WAITING:,} rows behind")

    def wait(self, until: float) -> None:
        """Waits for the last call, `close`, until this time of `time.monotonic`."""
        if not self._left:
            self._thread.join(max(until - time.monotonic(), 0))
        if self._thread.is_alive():
            self._hangs("it did not finish in time")

    def _hangs(self, why: str) -> None:
        if not self._left:
            self._left = True
            self._guarded.switch_off(why)
            self._give_up()

    def _work(self) -> None:
        method = ""
        while method != "close":
            method, *args = self._calls.get()
            self._guarded.call(method, *args)
