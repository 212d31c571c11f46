"""Whether a run is asked to stop: by a signal, of which all hosts take notice at the same step."""

import contextlib
import itertools
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

_calls = itertools.count(1)  # of all runs of this process, alike on all hosts
_AGAIN = b"\nswitchx: saving after this step; ctrl-C again leaves at once.\n"


def asked_to_stop() -> bool:
    """Whether one of several hosts is told to leave, as all agree at the same call; all must ask.

    A process that is alone is told by the signal itself: then this is False.
    """
    if jax.process_count() == 1:
        return False
    # A count of its own and not the step's number: it must grow, also after a rollback.
    return bool(multihost_utils.reached_preemption_sync_point(next(_calls)))


class Interruption:
    """Notes SIGTERM, SIGHUP and ctrl-C until the step is done; a second ctrl-C interrupts at once.

    In a job of several hosts one that is told is enough, as when its machine is to be taken away:
    JAX's own handler of SIGTERM tells the others, and all agree on the step. Signals are the main
    thread's: where another one trains, they do to the process what they would do without it.
    """

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._alone = jax.process_count() == 1

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is not threading.main_thread():
            return self
        noted = [signal.SIGINT, *([signal.SIGTERM] if self._alone else [])]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup sets it
            noted.append(signal.SIGHUP)
        for number in noted:
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def now(self) -> signal.Signals | None:
        """The signal for which to leave now, if any. All hosts ask once at each step."""
        if self._alone:
            return self._received
        return signal.SIGTERM if asked_to_stop() else None

    def note(self, number: signal.Signals) -> None:
        """Asks to stop, as if the signal had come: for what comes as an error instead."""
        if not self._alone and self._received is None:
            os.kill(os.getpid(), signal.SIGTERM)
        self._received = number

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._received == signal.SIGINT == number:
            raise KeyboardInterrupt
        if number == signal.SIGINT:
            with contextlib.suppress(OSError):  # nobody there to read it
                os.write(
                    sys.stderr.fileno(), _AGAIN
                )  # print could be in the middle of another line
        self.note(signal.Signals(number))
