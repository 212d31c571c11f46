"""One process at a time."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from switchx.storage.holders import InUseError
from switchx.storage.leases import lease
from switchx.storage.paths import AnyPath, expanded, is_remote
from switchx.storage.writing import write_errors
from switchx.terminal import remark

_held: set[Path] = set()


@contextlib.contextmanager
def exclusive_lock(path: AnyPath, what: str, holder: str) -> Iterator[None]:
    """Within, no other process is within the same lock; however this one ends, the lock ends too.

    In an object store it is a lease: see `leases`. Where a file system has no locks, a line on
    standard error says so.

    Args:
      path: of the lock, a small file that names who holds it.
      what: it is for, as in "MODEL_DIR='runs/a'".
      holder: what holds it, as in "switchx train".

    Raises:
      InUseError: it is held, by this process or another.
      RunError: the file cannot be written.
    """
    if is_remote(path):
        with lease(path, what, holder):
            yield
        return
    path = Path(expanded(os.fspath(path))).resolve()
    if path in _held:
        raise _refusal(what, holder, "this one")
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _locked(path, what, holder)
    _held.add(path)
    try:
        with file:
            yield
    finally:
        _held.remove(path)


def _locked(path: Path, what: str, holder: str) -> TextIO:
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            # Of the process and not of the file: workers forked from it do not keep it.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            with file:
                raise _refusal(what, holder, file.read().strip() or "unknown") from None
        except OSError as error:
            _warn(what, error.strerror)
            return file
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            break
        file.close()  # the holder before removed it between our opening and locking
    file.truncate(0)
    file.write(f"{os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file


def _refusal(what: str, holder: str, process: str) -> InUseError:
    return InUseError(
        f"{what} is in use by another {holder}, process {process}: wait for its end, or name "
        "another one."
    )


def _warn(what: str, why: str | None) -> None:
    remark(
        f"{what} is on a file system without locks ({why}): make sure that no other "
        "process writes there."
    )
