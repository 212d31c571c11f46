"""A file in which a reader moves about, wherever it lies: formats with their index at the end."""

import io
import os
from typing import BinaryIO

from switchx.storage.parts import Part, read_parts
from switchx.storage.paths import AnyPath, expanded, is_remote
from switchx.storage.reading import read_errors, size_of

_AHEAD = 2**20  # bytes of one request, where less is asked for


def open_to_seek(path: AnyPath, setting: str) -> BinaryIO:
    """Opens a file to be read at any place.

    Raises:
      UserError: it cannot be read, in the name of the setting that led there; of a URL at any
        later reading too.
    """
    with read_errors(path, setting):
        if not is_remote(path):
            return open(expanded(os.fspath(path)), "rb")
        size = size_of(path, setting)
        if size is None:
            raise FileNotFoundError("No such file")
        return io.BufferedReader(_AtUrl(path, size, setting), _AHEAD)


class _AtUrl(io.RawIOBase):
    """Each reading is a request for its bytes, tried again as all of them are."""

    def __init__(self, path: AnyPath, size: int, setting: str) -> None:
        self._path, self._size, self._setting = path, size, setting
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, into: object) -> int:
        view = memoryview(into)  # type: ignore[arg-type]
        end = min(self._at + len(view), self._size)
        if end <= self._at:
            return 0
        (content,) = read_parts([Part(self._path, self._at, end)], self._setting)
        view[: len(content)] = content
        self._at = end
        return len(content)
