"""What a file holds, told by how it begins and not by its name: a format that is read, or which."""

import re
from typing import NamedTuple

from switchx.data.files.compression import codec_of
from switchx.errors import UserError
from switchx.storage import AnyPath

HEAD = 2**16  # bytes that are looked at
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Format(NamedTuple):
    """A format that is read: its name, and what one record of it is called."""

    name: str
    unit: str


TEXT = Format("text", "line")
JSON_LINES = Format("JSON lines", "line")
JSON_ARRAY = Format("a JSON array", "element")
PARQUET = Format("Parquet", "row")

_GIVE = "give text, JSON lines, a JSON array or Parquet"
_INFLATE = "give it plain, or compressed by gzip, zstd, xz or bzip2"
_UNPACK = "unpack it and give the files that are in it"
_TEXTS = "give its texts as JSON lines"
_UTF8 = "give it as UTF-8"
_POINTER = b"version https://git-lfs"
_FETCH = "fetch the file that it stands for, as `git lfs pull` does"
_OTHERS = {
    b"PK\x03\x04": ("a ZIP archive", _UNPACK),
    b"PK\x05\x06": ("an empty ZIP archive", _UNPACK),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", _UNPACK),
    b"Rar!\x1a\x07": ("a RAR archive", _UNPACK),
    b"\x04\x22\x4d\x18": ("compressed by lz4", _INFLATE),
    b"\xff\x06\0\0sNaPpY": ("compressed by snappy", _INFLATE),
    b"\x1f\x9d": ("compressed by compress", _INFLATE),
    b"LZIP\x01": ("compressed by lzip", _INFLATE),
    b"\x5d\0\0": ("compressed by LZMA without xz", _INFLATE),
    b"\0\0\xfe\xff": ("UTF-32 text", _UTF8),
    b"\xff\xfe\0\0": ("UTF-32 text", _UTF8),
    b"\xff\xfe": ("UTF-16 text", _UTF8),
    b"\xfe\xff": ("UTF-16 text", _UTF8),
    b"ARROW1\0\0": ("an Arrow file", "give it as Parquet or JSON lines"),
    b"\xff\xff\xff\xff": ("an Arrow stream", "give it as Parquet or JSON lines"),
    b"Obj\x01": ("an Avro file", "give it as Parquet or JSON lines"),
    b"\x83\xaf\x70\xd1\x0d\x88\x4a\x3f": (
        "an ArrayRecord",
        "of a prepared set, PREPARED_DIR names the folder; else give its texts as JSON lines",
    ),
    b"SQLite format 3\0": ("a SQLite database", _TEXTS),
    b"\x89HDF": ("an HDF5 file", _TEXTS),
    b"\x93NUMPY": ("a NumPy array", _TEXTS),
    _POINTER: ("a Git LFS pointer", _FETCH),
    b"%PDF": ("a PDF", _TEXTS),
    b"%!PS": ("PostScript", _TEXTS),
    b"{\\rtf": ("RTF", _TEXTS),
    b"\xd0\xcf\x11\xe0": ("a document of Microsoft Office", _TEXTS),
    b"\x89PNG": ("a picture", _GIVE),
    b"\xff\xd8\xff": ("a picture", _GIVE),
    b"\x7fELF": ("a program", _GIVE),
    b"<?xml": ("XML", _TEXTS),
}
_HTML = re.compile(rb"<!doctype html|<html", re.IGNORECASE)
_ARRAY = re.compile(rb"\[\s*([{\"\]]|\Z)")
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
# What no text is full of: the control characters but tab, the ends of line and page, and escape.
_CONTROL = re.compile(rb"[\0-\x07\x0e-\x1a\x1c-\x1f]")
_CONTROL_SHARE = 0.02  # strays are found on web pages; of compressed bytes it is a tenth
# What no content tells: a table from a text with commas, a text from JSON whose beginning is lost.
_NAMED = re.compile(r"\.(?:(csv|tsv)|jsonl?|ndjson)(?:\.(?:gz|zst|xz|bz2))?$", re.IGNORECASE)


def check_fetched(head: bytes, path: AnyPath, setting: str) -> None:
    """Raises UserError where a file begins as Git leaves it that was not fetched."""
    if head.startswith(_POINTER):
        raise UserError(f"{setting} leads to {str(path)!r}, which is a Git LFS pointer: {_FETCH}.")


def recognised(head: bytes, path: str, setting: str) -> Format:
    """The format of a file, of which the first HEAD bytes are given, inflated.

    Raises:
      UserError: it is of none that is read; which it is, is said where it is known.
    """
    head = head[:HEAD]
    found = _other(head, path)
    if found is not None:
        what, advice = found
        raise UserError(f"{setting} leads to {path!r}, which is {what}: {advice}.")
    if head.startswith(b"PAR1"):
        return PARQUET
    return _json(head) or TEXT


def _json(head: bytes) -> Format | None:
    """The format of a file that begins as JSON does."""
    content = head.removeprefix(BYTE_ORDER_MARK).lstrip()
    if content.startswith(b"{"):
        return JSON_LINES
    return JSON_ARRAY if _ARRAY.match(content) else None


def _other(head: bytes, path: str) -> tuple[str, str] | None:
    """What a file is that is not read, and what to do; None of one that is."""
    content = head.removeprefix(BYTE_ORDER_MARK).lstrip()
    for magic, of in _OTHERS.items():
        if head.startswith(magic) or (magic.isascii() and content.startswith(magic)):
            return of
    if head[257:].startswith(b"ustar"):
        return "a tar archive", _UNPACK
    twice = codec_of(head)
    if twice is not None:
        return f"compressed by {twice.name} within another compression", "inflate it once"
    if _HTML.match(content):
        return "HTML", _TEXTS
    if _is_tfrecord(head):
        return "a TFRecord", _TEXTS
    if _PICKLE.match(head):
        return "a Python pickle, which could run anything", _TEXTS
    if head[:1] != head[1:2] and {0} in ({*head[1:40:2]}, {*head[:40:2]}) and len(head) > 3:
        return "UTF-16 text", _UTF8
    if head.startswith(b"PAR1"):
        return None
    json = _json(head)
    if json is not JSON_ARRAY and b"\r" in head[:-1] and b"\n" not in head:
        return "lines that end in CR alone", "end them in LF, as `tr '\\r' '\\n'` does"
    if json is JSON_LINES:
        return None
    if len(_CONTROL.findall(head)) > _CONTROL_SHARE * len(head):
        return f"binary data of no known kind (it begins with {head[:8]!r})", _GIVE
    named = _NAMED.search(path)
    if named and named[1]:
        return named[1].upper(), "give its rows as JSON lines or Parquet"
    if named and content and json is None:
        what = f"neither JSON lines nor an array of objects (it begins with {content[:20]!r})"
        return what, "mend it, or do not name text as JSON"
    return None


def _is_tfrecord(head: bytes) -> bool:
    """Whether it begins with a length and that length's masked CRC-32C."""
    crc = _crc32c(head[:8])
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return len(head) >= 12 and masked == int.from_bytes(head[8:12], "little")


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
