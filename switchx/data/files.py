"""Reads small files from wherever TensorFlow's file systems reach, without ever hanging."""

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from switchx.data.tensorflow_loader import load_tensorflow
from switchx.errors import UserError

REMOTE_SECONDS = 20.0
_NODE_NAMES = re.compile(r"\{\{.*?\}\}\s*|\s*\[Op:[^\]]*\]( name:)?")
T = TypeVar("T")


def is_remote(path: str) -> bool:
    """Whether a path names a file system other than the local one, as in gs://bucket/file."""
    return "://" in path


def read_bytes(path: str, setting: str) -> bytes:
    """Returns a file's bytes.

    Raises:
      UserError: it cannot be read, in the name of the setting that led there.
    """
    if is_remote(path):
        gfile = load_tensorflow().io.gfile
        return within_limit(lambda: gfile.GFile(path, "rb").read(), path, setting)
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise UserError(
            f"{setting} leads to {path!r}, which cannot be read ({error.strerror}); "
            "give a file that is there."
        ) from error


def list_matches(pattern: str, setting: str) -> list[str]:
    """Returns the files a glob matches, sorted."""
    gfile = load_tensorflow().io.gfile
    return sorted(within_limit(lambda: gfile.glob(pattern), pattern, setting))


def within_limit(read: Callable[[], T], path: str, setting: str) -> T:
    """Returns read(), in a thread of its own: remote file systems retry for minutes on their own.

    Raises:
      UserError: it failed, or took longer than REMOTE_SECONDS.
    """
    outcome: list[T] = []
    failure: list[Exception] = []

    def work() -> None:
        try:
            outcome.append(read())
        except Exception as error:  # whatever a file system raises is one thing to the user
            failure.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(REMOTE_SECONDS)
    if outcome:
        return outcome[0]
    why = first_line(failure[0]) if failure else f"no answer within {REMOTE_SECONDS:.0f} s"
    raise UserError(
        f"{setting} leads to {path!r}, which cannot be read ({why}); "
        "give a path to a copy that this machine can read."
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's text without TensorFlow's own names, or the error's type."""
    lines = _NODE_NAMES.sub("", str(error)).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
