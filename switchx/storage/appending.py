"""Files that grow while a run goes on."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from switchx.errors import RunError
from switchx.storage.paths import AnyPath, expanded, is_remote
from switchx.storage.reading import read_if_there
from switchx.storage.writing import write_errors, write_whole

PERIOD = 30.0  # seconds between two uploads of what grows


class Appender(Protocol):
    """A file that grows: complete up to the last flush, however the process ends.

    Behind that there may be a part of what came after it, on a disk. In an object store, where
    nothing can be appended, the whole is uploaded at most every `PERIOD` seconds, and at the end:
    a kill loses what was flushed since. `open_appender` makes one.
    """

    def append(self, content: bytes) -> None:
        """Adds to the end; RunError where it cannot be written."""

    def flush(self) -> None:
        """What was appended will be read by others; RunError where it cannot be written."""

    def sync(self) -> None:
        """All that was appended is there when this returns, for others and after a kill."""

    def close(self) -> None:
        """Syncs and closes."""


def open_appender(path: AnyPath, keep: Callable[[bytes], bytes] | None = None) -> Appender:
    """Opens a file to append to, made with its folders where it is missing.

    Args:
      keep: says what stays of what is there, as after a kill; None keeps all.

    Raises:
      RunError: it cannot be written.
    """
    if is_remote(path):
        there = read_if_there(path, "a run") or b""
        return _Uploader(path, keep(there) if keep else there, there)
    there_or_none = read_if_there(path, "a run") if keep else None
    if keep and there_or_none is not None:
        kept = keep(there_or_none)
        if kept != there_or_none:
            write_whole(path, kept)
    return _File(Path(expanded(os.fspath(path))))


class _File:
    """On this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab")

    def append(self, content: bytes) -> None:
        with write_errors(self._path):
            self._file.write(content)

    def flush(self) -> None:
        with write_errors(self._path):
            self._file.flush()

    sync = flush

    def close(self) -> None:
        with write_errors(self._path):
            self._file.close()


class _Uploader:
    """In an object store, uploaded by a thread of its own, so that nobody waits for it."""

    def __init__(self, path: AnyPath, kept: bytes, there: bytes) -> None:
        self._path, self._content = path, bytearray(kept)
        self._uploaded = there  # what the store has
        self._failure: RunError | None = None
        self._lock, self._uploading = threading.Lock(), threading.Lock()
        self._flushed, self._over = threading.Event(), threading.Event()
        if kept != there:
            self._upload()  # what was dropped must not be read beside what comes
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def append(self, content: bytes) -> None:
        with self._lock:
            self._content += content

    def flush(self) -> None:
        self._flushed.set()
        self._check()

    def sync(self) -> None:
        self._check()
        self._upload()

    def close(self) -> None:
        self._over.set()
        self._flushed.set()
        self._thread.join()
        self.sync()

    def _work(self) -> None:
        while not self._over.is_set():
            self._flushed.wait()
            self._flushed.clear()
            try:
                self._upload()
            except RunError as error:
                self._failure = error
                return
            self._over.wait(PERIOD)

    def _upload(self) -> None:
        with self._uploading:  # one behind the other: an older whole must not come last
            with self._lock:
                content = bytes(self._content)
            if content != self._uploaded:
                write_whole(self._path, content)
                self._uploaded = content

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
