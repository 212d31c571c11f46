"""The lines of a text file, plain or compressed, local or remote, in bounded memory."""

from collections.abc import Iterable, Iterator

from switchx import storage
from switchx.data.tasks import file_formats

MAX_LINE_BYTES = 256 * 2**20  # C4's longest are about a megabyte
_KEPT_BYTES = 240  # of a longer line


class CutLine(bytes):
    """The beginning of a line that is too long to be held."""


def read_lines(path: str, setting: str) -> Iterator[bytes]:
    """Yields the lines of a file without their ends; a CutLine beyond MAX_LINE_BYTES.

    Raises:
      UserError: the file cannot be read, is of a format that is not read or is damaged, in the name
        of the setting that led there.
    """
    yield from _split(file_formats.plain(storage.chunks(path, setting), path, setting))


def _split(chunks: Iterable[bytes]) -> Iterator[bytes]:
    begun = _BegunLine()
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        begun.add(first)
        if others:
            yield begun.take()
            yield from others[:-1]
            begun.add(others[-1])
    if begun.length:
        yield begun.take()


class _BegunLine:
    """A line whose end has not been read yet."""

    def __init__(self) -> None:
        self.length = 0
        self._parts: list[bytes] = []

    def add(self, part: bytes) -> None:
        self.length += len(part)
        if self.length <= MAX_LINE_BYTES:
            self._parts.append(part)
        else:
            begin = b"".join(kept[:_KEPT_BYTES] for kept in [*self._parts, part])
            self._parts = [begin[:_KEPT_BYTES]]

    def take(self) -> bytes:
        line = b"".join(self._parts)
        cut = self.length > MAX_LINE_BYTES
        self.length, self._parts = 0, []
        return CutLine(line) if cut else line
