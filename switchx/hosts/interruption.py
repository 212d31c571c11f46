"""Whether a run is asked to stop: by a signal, of which all hosts take notice at the same step."""

import os
import signal
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils


class Interruption:
    """Notes SIGTERM and ctrl-C until the step is done; a second ctrl-C interrupts at once.

    In a job of several hosts one that is told is enough, as when its machine is to be taken away:
    JAX's own handler of SIGTERM tells the others, and all agree on the step.
    """

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._alone = jax.process_count() == 1
        self._asked = 0

    def __enter__(self) -> "Interruption":
        noted = (signal.SIGTERM, signal.SIGINT) if self._alone else (signal.SIGINT,)
        for number in noted:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def now(self) -> signal.Signals | None:
        """The signal for which to leave now, if any. All hosts ask once at each step."""
        if self._alone:
            return self._received
        self._asked += 1  # and not the step's number: this must grow, also after a rollback
        reached = multihost_utils.reached_preemption_sync_point(self._asked)
        return signal.SIGTERM if reached else None

    def _note(self, number: int, _: FrameType | None) -> None:
        if self._received == signal.SIGINT == number:
            raise KeyboardInterrupt
        self._received = signal.Signals(number)
        if not self._alone:
            os.kill(os.getpid(), signal.SIGTERM)
