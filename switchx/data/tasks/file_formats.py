"""What a file of text is, told from how it begins and not from its name; compressed ones inflated.

In bounded memory, whatever a file makes of itself.
"""

import importlib
import itertools
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from switchx.errors import UserError

_INFLATED_CHUNK = 2**20
_ZSTD_PIECE = 2**12  # makes 128 MB of the worst input, and 12 kB of text
_GZIP_WINDOW = 16 + zlib.MAX_WBITS
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_TAR, _TAR_AT = b"ustar", 257
_GIVE = "give it as gzip or plain text"
_LINES = "give JSON lines, one object with a 'text' in each"
_NOT_READ = {
    b"\xfd7zXZ": ("compressed by xz", _GIVE),
    b"BZh": ("compressed by bzip2", _GIVE),
    b"PK\x03\x04": ("compressed by zip", _GIVE),
    b"\x04\x22\x4d\x18": ("compressed by lz4", _GIVE),
    b"PAR1": ("Parquet", _LINES),
    b"ARROW1": ("Arrow", _LINES),
    b"Obj\x01": ("Avro", _LINES),
    b"\xff\xfe": ("UTF-16", "give it as UTF-8"),
    b"\xfe\xff": ("UTF-16", "give it as UTF-8"),
    b"\0\0\xfe\xff": ("UTF-32", "give it as UTF-8"),
    b"version https://git-lfs": ("a pointer of Git LFS", "fetch the file that it stands for"),
    b"<!DOCTYPE": ("an HTML page", _LINES),
    b"<html": ("an HTML page", _LINES),
}


def plain(chunks: Iterator[bytes], path: str, setting: str) -> Iterator[bytes]:
    """Yields the text in a file's chunks, inflated where it is compressed by gzip or zstd.

    Raises:
      UserError: the file is of another format, or damaged, in the name of the setting that led
        there.
    """
    first = next(chunks, b"")
    _refuse_others(first, path, setting)
    chunks = itertools.chain([first], chunks)
    if first.startswith(_ZSTD):
        chunks = _of_zstd(chunks, path, setting)
    elif first.startswith(_GZIP) or (path.lower().endswith(".gz") and not _is_text(first)):
        chunks = _of_gzip(chunks, path, setting)
    else:
        yield from chunks
        return
    first = next(chunks, b"")
    _refuse_others(first, path, setting)
    yield first
    yield from chunks


def _refuse_others(first: bytes, path: str, setting: str) -> None:
    found = [of for begins, of in _NOT_READ.items() if first.startswith(begins)]
    if first[_TAR_AT:].startswith(_TAR):
        found = [("an archive of tar", "unpack it")]
    if found:
        what, advice = found[0]
        raise UserError(f"{setting} leads to {path!r}, which is {what}: {advice}.")


def _is_text(first: bytes) -> bool:
    """Whether it begins like JSON: a download is often inflated on the way, and keeps its name."""
    return first.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")


def _of_gzip(chunks: Iterable[bytes], path: str, setting: str) -> Iterator[bytes]:
    member, begun = zlib.decompressobj(_GZIP_WINDOW), False
    try:
        for chunk in chunks:
            rest = chunk
            while rest:
                yield member.decompress(rest, _INFLATED_CHUNK)
                rest, begun = member.unconsumed_tail, True
                if member.eof:  # another may follow, after zeros that fill up a block
                    rest = member.unused_data.lstrip(b"\0")
                    member, begun = zlib.decompressobj(_GZIP_WINDOW), False
        yield member.flush()
    except zlib.error as error:
        raise _damaged(path, setting, str(error)) from error
    if begun and not member.eof:
        raise _damaged(path, setting, "it ends too early")


def _of_zstd(chunks: Iterable[bytes], path: str, setting: str) -> Iterator[bytes]:
    zstd = _zstandard(path, setting)
    frame, begun = zstd.ZstdDecompressor().decompressobj(), False
    try:
        for chunk in chunks:
            for start in range(0, len(chunk), _ZSTD_PIECE):
                rest = chunk[start : start + _ZSTD_PIECE]
                while rest:
                    yield frame.decompress(rest)
                    rest, begun = b"", True
                    if frame.eof:  # another may follow
                        rest = frame.unused_data
                        frame, begun = zstd.ZstdDecompressor().decompressobj(), False
    except zstd.ZstdError as error:
        raise _damaged(path, setting, str(error)) from error
    if begun:
        raise _damaged(path, setting, "it ends too early")


def _zstandard(path: str, setting: str) -> Any:
    try:
        return importlib.import_module("zstandard")
    except ImportError:
        raise UserError(
            f"{setting} leads to {path!r}, which is compressed by zstd: `pip install zstandard` to "
            "have it read, or give it as gzip or plain text."
        ) from None


def _damaged(path: str, setting: str, why: str) -> UserError:
    return UserError(
        f"{setting} leads to {path!r}, whose compression is damaged ({why}); "
        "give a whole copy of the file."
    )
