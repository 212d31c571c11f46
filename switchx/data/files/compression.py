"""Inflates files of gzip, Zstandard, xz and bzip2, told by how they begin and not by their names.

In bounded memory, whatever a file makes of itself. Files that were joined, and filled up with
zeros as block tools do, are read to their end.
"""

import bz2
import itertools
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from switchx.errors import UserError

_INFLATED = 2**20  # bytes at once
_ZSTD_PIECE = 2**12  # makes 128 MB of the worst input, and 12 kB of text
_ZSTD_WINDOW = 2**31  # of `zstd --long=31`, which large corpora are made with
_XZ_MEMORY = 2**30  # `xz -9` needs 65 MB
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


class Codec(NamedTuple):
    """How a compression is undone.

    Attributes:
      name: as a person calls it.
      begin: makes what inflates one member of a file, with `eof` and `unused_data`.
      inflate: the pieces that some bytes of a member become.
      fed: bytes that it is given at once.
    """

    name: str
    begin: Callable[[], Any]
    inflate: Callable[[Any, bytes], Iterator[bytes]]
    fed: int = _INFLATED


def _gzip_pieces(member: Any, data: bytes) -> Iterator[bytes]:
    while data:
        yield member.decompress(data, _INFLATED)
        data = member.unconsumed_tail


def _held_pieces(member: Any, data: bytes) -> Iterator[bytes]:
    """Of those that keep what they have not come to."""
    yield member.decompress(data, _INFLATED)
    while not (member.eof or member.needs_input):
        yield member.decompress(b"", _INFLATED)


def _zstd_pieces(member: Any, data: bytes) -> Iterator[bytes]:
    yield member.decompress(data)


def _zstd() -> Any:
    import zstandard

    return zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()


_ZSTD = Codec("zstd", _zstd, _zstd_pieces, _ZSTD_PIECE)
_BZIP2 = Codec("bzip2", bz2.BZ2Decompressor, _held_pieces)
_BLOCKS = ("1AY&SY", "\x17rE8P\x90")  # how the first begins, or the end of none
_CODECS = {
    b"\x1f\x8b": Codec("gzip", lambda: zlib.decompressobj(_GZIP_WINDOW), _gzip_pieces),
    b"\x28\xb5\x2f\xfd": _ZSTD,
    **{bytes([0x50 + n]) + b"\x2a\x4d\x18": _ZSTD for n in range(16)},  # a frame to skip, of pzstd
    b"\xfd7zXZ\0": Codec(
        "xz", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY), _held_pieces
    ),
    **{f"BZh{n}{mark}".encode("latin-1"): _BZIP2 for n in range(1, 10) for mark in _BLOCKS},
}


def codec_of(head: bytes) -> Codec | None:
    """What a file that begins so is compressed by; None of one that is not."""
    return next((codec for magic, codec in _CODECS.items() if head.startswith(magic)), None)


def inflated(chunks: Iterable[bytes], codec: Codec, path: str, setting: str) -> Iterator[bytes]:
    """Yields what a compressed file holds, in pieces of at least a byte.

    Raises:
      UserError: it is damaged, in the name of the setting that led there.
    """
    member, begun = codec.begin(), False
    try:
        for rest in _slices(chunks, codec.fed):
            while rest and (begun or (rest := rest.lstrip(b"\0"))):
                yield from filter(None, codec.inflate(member, rest))
                rest, begun = b"", True
                if member.eof:  # another may follow
                    rest, member, begun = member.unused_data, codec.begin(), False
        if begun and hasattr(member, "flush") and (held := member.flush()):  # zlib's last
            yield held
    except (UserError, GeneratorExit):
        raise
    except Exception as error:  # zlib's, lzma's and zstandard's own, OSError, EOFError, MemoryError
        raise _damaged(path, setting, codec, str(error) or type(error).__name__) from error
    if begun and not member.eof:
        raise _damaged(path, setting, codec, "it ends too early")


def peek(chunks: Iterator[bytes], size: int) -> tuple[bytes, Iterator[bytes]]:
    """The first bytes, so many where there are, and all chunks as before."""
    parts, found = [], 0
    while found < size and (chunk := next(chunks, None)) is not None:
        parts.append(chunk)
        found += len(chunk)
    return b"".join(parts), itertools.chain(parts, chunks)


def _slices(chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
    for chunk in chunks:
        for start in range(0, len(chunk), size):
            yield chunk[start : start + size]


def _damaged(path: str, setting: str, codec: Codec, why: str) -> UserError:
    return UserError(
        f"{setting} leads to {path!r}, whose compression by {codec.name} is damaged ({why}): "
        "give a whole copy of the file."
    )
