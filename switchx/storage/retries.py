"""Calls that can hang or fail for a while: a limit to each try, and several tries."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from switchx.errors import UserError
from switchx.storage.trouble import explain, is_final
from switchx.terminal import remark

TRIES = 6
FIRST_WAIT = 1.0  # seconds before the second try; each later wait is twice as long
_QUIET_WAIT = 2.0  # shorter tries and waits are nothing to tell the user about
_KNOWN = (OSError, ImportError, NotImplementedError, UserError)  # what callers catch
T = TypeVar("T")


def with_retries(call: Callable[[], T], path: str, seconds: float, doing: str = "read") -> T:
    """Returns call(), tried again with growing pauses while it fails or takes too long.

    Args:
      path, doing: for the line on standard error that says what is waited for.
      seconds: the limit of one try, which goes on in a thread of its own after it: the call must
        change nothing that the next try uses.

    Raises:
      OSError: every try failed, or one in a way that does not pass.
    """
    wait = FIRST_WAIT
    for number in range(TRIES):
        began = time.monotonic()
        try:
            return in_time(call, seconds)
        except Exception as error:  # whatever a file system raises
            if is_final(error):
                if isinstance(error, _KNOWN):
                    raise
                raise OSError(explain(error)) from error
            if number == TRIES - 1:
                raise OSError(f"{explain(error)}, after {TRIES} tries") from error
            if time.monotonic() - began + wait > _QUIET_WAIT:
                remark(f"{path} cannot be {doing} ({explain(error)}); trying again in {wait:.0f} s")
            time.sleep(wait)
        wait *= 2
    raise AssertionError


def in_time(call: Callable[[], T], seconds: float) -> T:
    """Returns call() from a thread of its own; TimeoutError where it takes longer than seconds."""
    outcome: list[T] = []
    failure: list[Exception] = []

    def work() -> None:
        try:
            outcome.append(call())
        except Exception as error:
            failure.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if failure:
        raise failure[0]
    if not outcome:
        raise TimeoutError(f"no answer within {seconds:.0f} s")
    return outcome[0]
