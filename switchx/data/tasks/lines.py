"""The lines of a text file, plain or .gz, local or remote, in bounded memory."""

import itertools
import zlib
from collections.abc import Iterable, Iterator

from switchx import storage
from switchx.errors import UserError

MAX_LINE_BYTES = 256 * 2**20  # C4's longest are about a megabyte
_KEPT_BYTES = 240  # of a longer line
_INFLATED_CHUNK = 2**20
_GZIP = 16 + zlib.MAX_WBITS
_GZIP_BEGINS = b"\x1f\x8b"
_NOT_READ = {b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ": "xz", b"BZh": "bzip2", b"PK\x03\x04": "zip"}


class CutLine(bytes):
    """The beginning of a line that is too long to be held."""


def read_lines(path: str, setting: str) -> Iterator[bytes]:
    """Yields the lines of a file without their ends; a CutLine beyond MAX_LINE_BYTES.

    Raises:
      UserError: the file cannot be read, is compressed by something else than gzip or is damaged,
        in the name of the setting that led there.
    """
    chunks = storage.chunks(path, setting)
    first = next(chunks, b"")
    for begins, name in _NOT_READ.items():
        if first.startswith(begins):
            raise UserError(
                f"{setting} leads to {path!r}, which is compressed by {name}: give it as gzip or "
                "plain text."
            )
    chunks = itertools.chain([first], chunks)
    if first.startswith(_GZIP_BEGINS) or path.lower().endswith(".gz"):
        chunks = _inflated(chunks, path, setting)
    yield from _split(chunks)


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


def _inflated(chunks: Iterable[bytes], path: str, setting: str) -> Iterator[bytes]:
    """Yields what compressed bytes hold, however much it is, in chunks of a limited size."""
    member, begun = zlib.decompressobj(_GZIP), False
    try:
        for chunk in chunks:
            rest = chunk
            while rest:
                yield member.decompress(rest, _INFLATED_CHUNK)
                rest, begun = member.unconsumed_tail, True
                if member.eof:  # another may follow, after zeros that fill up a block
                    rest = member.unused_data.lstrip(b"\0")
                    member, begun = zlib.decompressobj(_GZIP), False
        yield member.flush()
    except zlib.error as error:
        raise _damaged(path, setting, str(error)) from error
    if begun and not member.eof:
        raise _damaged(path, setting, "it ends too early")


def _damaged(path: str, setting: str, why: str) -> UserError:
    return UserError(
        f"{setting} leads to {path!r}, whose compression is damaged ({why}); "
        "give a whole copy of the file."
    )
