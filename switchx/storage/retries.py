"""Calls that can hang or fail for a while: a limit to each try, and several tries."""

import re
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from switchx.errors import UserError

TRIES = 6
FIRST_WAIT = 1.0  # seconds before the second try; each later wait is twice as long
_QUIET_WAIT = 2.0  # shorter waits are nothing to tell the user about
_NODE_NAMES = re.compile(r"\{\{.*?\}\}\s*|\s*\[Op:[^\]]*\]( name:)?")
# Trying again changes nothing about these.
_FINAL = (
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    ImportError,
    NotImplementedError,
    UserError,
)
T = TypeVar("T")


def persistently(
    call: Callable[[], T], path: str, setting: str, seconds: float, doing: str = "read"
) -> T:
    """Returns call(), tried again with growing pauses while it fails or takes too long.

    Args:
      seconds: the limit of one try, which goes on in a thread of its own after it: the call must
        change nothing that the next try uses.

    Raises:
      UserError: every try failed, or one failed in a way that does not pass.
    """
    wait = FIRST_WAIT
    for tried in range(1, TRIES + 1):
        try:
            return in_time(call, seconds)
        except Exception as error:  # whatever a file system raises is one thing to the user
            if tried == TRIES or isinstance(error, _FINAL):
                raise _unreadable(error, path, setting, tried, doing) from error
            _pause(wait, error, path, doing)
        wait *= 2
    raise AssertionError("the last try returns or raises")


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


def first_line(error: BaseException) -> str:
    """The first line of an error's text without TensorFlow's own names, or the error's type."""
    lines = _NODE_NAMES.sub("", str(error)).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _pause(wait: float, error: Exception, path: str, doing: str) -> None:
    if wait > _QUIET_WAIT:
        why = first_line(error)
        print(
            f"switchx: {path} cannot be {doing} ({why}); trying again in {wait:.0f} s",
            file=sys.stderr,
        )
    time.sleep(wait)


def _unreadable(error: Exception, path: str, setting: str, tried: int, doing: str) -> UserError:
    if isinstance(error, UserError):
        return error
    why = f"{type(error).__name__}: {first_line(error)}"
    times = f" after {tried} tries" if tried > 1 else ""
    return UserError(
        f"{setting} leads to {path!r}, which cannot be {doing}{times} ({why}); "
        f"give a path to a copy that can be {doing} from this machine."
    )
