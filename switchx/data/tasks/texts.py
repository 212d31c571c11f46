"""The texts in a file's records: the field of JSON and Parquet, or each line of a text."""

import itertools
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple, NoReturn

import numpy as np

from switchx.data.files import TEXT, CutLine, Record, Records, open_records
from switchx.data.tasks.table_fields import Missing, columns_of, found_at
from switchx.errors import UserError

MAX_TEXT_CHARS = 1_000_000
MIN_LINES_TO_JUDGE = 1_000  # a share of fewer lines says little, until the files end
# A saved position counts blocks: other sizes make other blocks.
_BLOCK_RECORDS = 128
_BLOCK_BYTES = 2**20
_EXCERPT_CHARS = 60


class Block(NamedTuple):
    """Some records of a file that stand side by side; none is behind the file's end."""

    file: Records | None
    records: Sequence[Record]


class LineCounter:
    """Takes the texts out of records, counts the broken ones and says when they are too many.

    tf.data calls it from its own threads, ahead of the batches that are asked for.
    """

    def __init__(
        self, max_broken_share: float, field: str = "text", setting: str = "TEXT_FIELD"
    ) -> None:
        """field: where the text lies, as TASK_FIELDS says it; a line of text is taken as it is.

        setting: what gave the field, as errors name it.
        """
        self.lines = 0
        self.broken = 0
        self.texts = 0
        self.failure: str | None = None  # why the pipeline stopped, in one sentence
        self._field, self._setting = field, setting
        self._max_broken_share = max_broken_share
        self._first_broken = ""
        self._lock = threading.Lock()

    def parse(self, block: Block) -> np.ndarray:
        """Returns the texts of a block, as an object array of UTF-8 bytes.

        Raises:
          UserError: too large a share of all records so far is broken, or none of the first in a
            file has the field; also kept as `failure`.
        """
        texts = []
        file, records = block
        with self._lock:
            if file is not None and records and records[0].number == 1:
                self._check_field(file, records)
            for record in records:
                if file is None or record.is_blank:
                    continue
                text = self._text(file, record)
                self.lines += 1
                if text is None:
                    self.broken += 1
                    self._first_broken = self._first_broken or self._describe(file, record)
                else:
                    texts += [piece.encode("utf-8", "replace") for piece in _pieces(text)]
            self.texts += len(texts)
            if self.lines >= MIN_LINES_TO_JUDGE:
                self._check_share()
        return np.array(texts, dtype=object)

    def finish_pass(self, given: str) -> None:
        """Judges what was read when all files have ended, however few lines they had.

        Args:
          given: what led to the files, as in "C4_JSON_TRAIN='*.json'".
        """
        with self._lock:
            self._check_share()
            if not self.texts:
                self._stop(
                    f"{given} has no text: {self.lines} lines were read and none holds any (of "
                    f"JSON and Parquet in the field {self._field!r}): give files with text."
                )

    def _text(self, file: Records, record: Record) -> str | None:
        """The text of a record; None where it is broken."""
        values = file.values(record)
        if values is None:
            return None
        text = values["text"] if file.format is TEXT else found_at(values, self._field)
        return text if isinstance(text, str) else None

    def _check_field(self, file: Records, records: Sequence[Record]) -> None:
        """Stops where the first records of a file are what they should be, of other fields."""
        found = [values for values in map(file.values, records) if values]
        if file.format is TEXT or not found:
            return
        if all(found_at(values, self._field) is Missing for values in found):
            fields = ", ".join(map(repr, file.fields(found[0])[:12]))
            self._stop(
                f"{self._setting}={self._field!r} is in none of the first {len(found)} "
                f"{file.format.unit}s of {file.path!r}, whose fields are {fields}: name the one "
                "that holds the text."
            )

    def _check_share(self) -> None:
        if self.broken > self._max_broken_share * self.lines:
            self._stop(
                f"MAX_BROKEN_LINES={self._max_broken_share} but {self.broken} of "
                f"{self.lines} lines hold no text that can be read, the first "
                f"{self._first_broken}: mend the files or raise MAX_BROKEN_LINES."
            )

    def _describe(self, file: Records, record: Record) -> str:
        content, values = record.content, file.values(record)
        shown = content.decode("utf-8", "replace") if isinstance(content, bytes) else str(content)
        what = ""
        if values:
            found = found_at(values, self._field)
            what = f", whose {self._field!r} is no text but of type {type(found).__name__}"
            if found is Missing:
                fields = ", ".join(map(repr, file.fields(values)[:5]))
                what = f", which has no {self._field!r}; its fields are {fields}"
        elif isinstance(content, CutLine):
            what = ", which is too long"
        elif isinstance(content, bytes) and not _is_utf8(content):
            what = ", which is not UTF-8"
        elif isinstance(content, bytes):
            what = ", where JSON lines have one whole object in each line"
        return f"{file.place(record)}: {shown[:_EXCERPT_CHARS]!r}{what}"

    def _stop(self, reason: str) -> NoReturn:
        # The first reason stays: threads ahead of the batches read on until they are stopped.
        # Kept as text: an exception would keep the frames it went through, and so the pipeline.
        self.failure = self.failure or reason
        raise UserError(self.failure)


class Blocks:
    """The records of files in numbered blocks; asked for in order, each file is read once."""

    def __init__(self, field: str = "text") -> None:
        self._field = field
        self._begun: dict[str, tuple[int, Iterator[Block]]] = {}
        self._lock = threading.Lock()

    def get(self, path: str, setting: str, number: int) -> Block:
        """Returns a block of a file, one of none after the last. Those passed over are not parsed.

        Raises:
          UserError: as `open_records`.
        """
        with self._lock:
            next_number, blocks = self._begun.pop(path, (-1, iter(())))
        if next_number != number:
            blocks = itertools.islice(blocks_of(path, setting, self._field), number, None)
        block = next(blocks, Block(None, ()))
        if block.records:
            with self._lock:
                self._begun[path] = (number + 1, blocks)
        return block


def blocks_of(path: str, setting: str, field: str = "text") -> Iterator[Block]:
    """Yields the records of a file, some at a time, the same ones whatever it is compressed by."""
    file = open_records(path, setting)
    records: list[Record] = []
    size = 0
    for record in file.read(columns_of([field])):
        records.append(record)
        size += record.size
        if len(records) == _BLOCK_RECORDS or size >= _BLOCK_BYTES:
            yield Block(file, records)
            records, size = [], 0
    if records:
        yield Block(file, records)


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _pieces(text: str) -> Iterator[str]:
    """Yields a text, in pieces that end at white space where it is very long; none of no text.

    Tokenizing takes many times a text's memory. T5 trains on no more than 65,536 tokens of a
    document, drawn at random; of a longer one than MAX_TEXT_CHARS, it draws so many of each piece.
    """
    begin = 0
    while begin < len(text):
        end = begin + MAX_TEXT_CHARS
        if end < len(text):
            spaces = (text.rfind(space, begin, end) for space in " \n")
            end = max(spaces) + 1 or end
        piece = text[begin:end]
        if not piece.isspace():
            yield piece
        begin = end
