"""The records of a file: lines of text, JSON lines, elements of a JSON array, rows of Parquet."""

import concurrent.futures
import contextlib
import json
import tempfile
from collections.abc import Callable, Collection, Iterator
from typing import Any, BinaryIO, NamedTuple

from switchx import storage
from switchx.data.files.compression import codec_of, inflated, peek
from switchx.data.files.formats import (
    BYTE_ORDER_MARK,
    HEAD,
    JSON_ARRAY,
    PARQUET,
    TEXT,
    Format,
    recognised,
)
from switchx.data.files.json_array import ArrayError, elements_of
from switchx.data.files.lines import CutLine, lines_of
from switchx.data.files.parquet import ParquetRows
from switchx.errors import UserError

_AT_ONCE = 16  # files that are looked at: a mounted bucket takes its time for each
_MAGIC = 16  # bytes that tell a compression


class Record(NamedTuple):
    """One record.

    Attributes:
      number: from 1, empty lines counted.
      content: bytes of a line without its end, or what an element or row is.
      size: bytes that it takes, about.
    """

    number: int
    content: Any
    size: int

    @property
    def is_blank(self) -> bool:
        """Whether it is an empty line, which is no record of anything."""
        line = self.content
        return isinstance(line, bytes) and not isinstance(line, CutLine) and not line.strip()


class Records:
    """A file's records, read once in their order.

    Attributes:
      path: the file.
      format: what it holds.
      compression: its name; "" for none.
    """

    def __init__(
        self,
        path: str,
        setting: str,
        chunks: Iterator[bytes],
        open_it: Callable[[], BinaryIO] | None = None,
    ) -> None:
        """open_it: opens the file to move about in; None where it can be read in order alone."""
        self.path, self._setting = path, setting
        head, chunks = peek(chunks, _MAGIC)
        codec = codec_of(head)
        self.compression = codec.name if codec else ""
        if codec is not None:
            chunks = inflated(chunks, codec, path, setting)
            open_it = None
        head, chunks = peek(chunks, HEAD)
        self.format: Format = recognised(head, path, setting)
        self._chunks = chunks if self.format is PARQUET else _without_mark(chunks)
        self._open = open_it or self._on_disk
        self._fields: tuple[str, ...] = ()

    def read(self, columns: Collection[str] = ()) -> Iterator[Record]:
        """Yields the records.

        Args:
          columns: those that are needed of a row; none is all.

        Raises:
          UserError: the file cannot be read, is damaged, or is no JSON array after all.
        """
        found: Iterator[tuple[Any, int]]
        if self.format is PARQUET:
            found = self._rows(columns)
        elif self.format is JSON_ARRAY:
            found = self._elements()
        else:
            found = ((line, len(line)) for line in lines_of(self._chunks))
        for number, (content, size) in enumerate(found, 1):
            yield Record(number, content, size)

    def count(self) -> int:
        """How many records there are, empty lines left out: Parquet says it, others are counted."""
        if self.format is PARQUET:
            with contextlib.closing(self._open()) as file:
                return ParquetRows(file, self.path, self._setting).count
        return sum(not record.is_blank for record in self.read())

    def values(self, record: Record) -> dict[str, Any] | None:
        """The fields of a record, of a line of text the field 'text'; None where it is broken."""
        content = record.content
        if isinstance(content, CutLine):
            return None
        try:
            if self.format is TEXT:
                return {"text": content.removesuffix(b"\r").decode()}
            if isinstance(content, bytes):
                content = json.loads(content)
        except (ValueError, RecursionError):
            return None
        return content if isinstance(content, dict) else None

    def fields(self, values: dict[str, Any]) -> tuple[str, ...]:
        """The names of all that a record has whose values are these."""
        return self._fields or tuple(values)

    def place(self, record: Record) -> str:
        """Where a record stands, as errors name it: "line 3 of 'a.jsonl'"."""
        return f"{self.format.unit} {record.number} of {self.path!r}"

    def _rows(self, columns: Collection[str]) -> Iterator[tuple[dict[str, Any], int]]:
        with contextlib.closing(self._open()) as file:
            rows = ParquetRows(file, self.path, self._setting)
            self._fields = rows.fields
            yield from rows.rows(columns)

    def _elements(self) -> Iterator[tuple[Any, int]]:
        try:
            yield from elements_of(self._chunks)
        except ArrayError as error:
            raise UserError(
                f"{self._setting} leads to {self.path!r}, which begins as a JSON array and is none "
                f"({error}): mend it, or give JSON lines."
            ) from None

    def _on_disk(self) -> BinaryIO:
        """What is read in order, as a file to move about in."""
        with storage.read_errors(self.path, self._setting), contextlib.ExitStack() as undo:
            file = undo.enter_context(tempfile.TemporaryFile())
            for chunk in self._chunks:
                file.write(chunk)
            file.seek(0)
            undo.pop_all()
        return file  # type: ignore[return-value]


def open_records(path: str, setting: str) -> Records:
    """Looks into a file, wherever it lies.

    Raises:
      UserError: it cannot be read, is damaged or of a format that is not read, in the name of the
        setting that led there.
    """
    chunks = storage.chunks(path, setting)
    return Records(path, setting, chunks, lambda: storage.open_to_seek(path, setting))


def check_formats(paths: Collection[str], setting: str) -> None:
    """Looks at how each file of this machine begins; those at URLs are left for when they are read.

    Raises:
      UserError: one cannot be read, or is of a format that is not read.
    """
    local = [path for path in paths if not storage.is_remote(path)]
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(lambda path: _check_format(path, setting), local):
            pass


def _check_format(path: str, setting: str) -> None:
    with storage.read_errors(path, setting), storage.open_to_seek(path, setting) as file:
        head = file.read(HEAD)
    codec = codec_of(head)
    if codec is not None:
        compressed, head = head, b""
        with contextlib.suppress(UserError):  # it goes on; what is damaged is said when it is read
            for piece in inflated([compressed], codec, path, setting):
                head += piece
                if len(head) >= HEAD:
                    break
    recognised(head, path, setting)


def _without_mark(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Without the byte order mark that they may begin with."""
    begin = b""
    while len(begin) < len(BYTE_ORDER_MARK) and (chunk := next(chunks, b"")):
        begin += chunk
    yield begin.removeprefix(BYTE_ORDER_MARK)
    yield from chunks
