"""The lines of a text, in bounded memory."""

from collections.abc import Iterable, Iterator

MAX_LINE_BYTES = 256 * 2**20  # C4's longest are about a megabyte
_KEPT_BYTES = 240  # of a longer line


class CutLine(bytes):
    """The beginning of a line that is too long to be held."""


def lines_of(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yields the lines of a text without their ends; a CutLine beyond MAX_LINE_BYTES."""
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
