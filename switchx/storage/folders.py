"""Writes whole files, or none, into a folder on this machine or behind any fsspec URL."""

import functools
import os
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from switchx.storage.retries import persistently

_REMOTE_SECONDS = 1800.0  # of one try: a shard may have a gigabyte
T = TypeVar("T")


class Folder:
    """A folder to write to, made where it is missing.

    What stands under a file's name is whole: a file is written under another name first. On an
    object store it appears when its upload is done.
    """

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs
        from fsspec.implementations.local import LocalFileSystem

        self._url = url
        self._fs, self._root = url_to_fs(os.path.expanduser(url))
        self._is_local = isinstance(self._fs, LocalFileSystem)
        self._fs.makedirs(self._root, exist_ok=True)

    @property
    def local_path(self) -> Path | None:
        """Where it lies on this machine; None for a remote one."""
        return Path(self._root) if self._is_local else None

    def write(self, name: str, text: str) -> None:
        """Writes a small file."""
        self.write_with(name, lambda path: path.write_text(text, encoding="utf-8"))

    def write_with(self, name: str, write: Callable[[Path], Any]) -> Any:
        """Writes a file by `write(path)`, which gets a path on this machine; returns its result."""
        if self._is_local:
            part = Path(self._root) / f".{name}.{uuid.uuid4().hex}.part"
            try:
                result = write(part)
                _flush(part)
                os.replace(part, Path(self._root) / name)
            finally:
                part.unlink(missing_ok=True)
            return result
        with tempfile.TemporaryDirectory() as scratch:
            part = Path(scratch) / name
            result = write(part)
            upload = functools.partial(self._fs.put_file, str(part), f"{self._root}/{name}")
            self._persistently(upload, name, "written")
        return result

    def read(self, name: str) -> bytes | None:
        """A small file's bytes; None where there is none."""
        return self._persistently(lambda: self._or_none(self._fs.cat_file, name), name)

    def size(self, name: str) -> int | None:
        """A file's bytes; None where there is none."""
        return self._persistently(lambda: self._or_none(self._fs.size, name), name)

    def names(self) -> set[str]:
        """The names of what lies in it."""
        self._fs.invalidate_cache(self._root)
        paths = self._persistently(lambda: self._fs.ls(self._root, detail=False), "")
        return {path.rstrip("/").rsplit("/", 1)[-1] for path in paths}

    def remove(self) -> None:
        """Removes it with everything in it."""
        self._fs.rm(self._root, recursive=True)

    def _or_none(self, ask: Callable[[str], T], name: str) -> T | None:
        try:
            return ask(f"{self._root}/{name}")
        except FileNotFoundError:
            return None

    def _persistently(self, call: Callable[[], T], name: str, doing: str = "read") -> T:
        if self._is_local:
            return call()
        return persistently(call, f"{self._url}/{name}", "PREPARED_DIR", _REMOTE_SECONDS, doing)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
