"""The texts of JSON-lines files: one JSON object a line, its text in the field `text`."""

import itertools
import json
import threading
from collections.abc import Iterator, Sequence
from typing import NoReturn

import numpy as np

from switchx.data.tasks.lines import CutLine, read_lines
from switchx.errors import UserError

MAX_TEXT_CHARS = 1_000_000
MIN_LINES_TO_JUDGE = 1_000  # a share of fewer lines says little, until the files end
# A saved position counts blocks: other sizes make other blocks.
_BLOCK_LINES = 128
_BLOCK_BYTES = 2**20
_EXCERPT_CHARS = 60


class LineCounter:
    """Parses lines, counts the broken ones and says when they are too many.

    tf.data calls it from its own threads, ahead of the batches that are asked for.
    """

    def __init__(self, max_broken_share: float) -> None:
        self.lines = 0
        self.broken = 0
        self.texts = 0
        self.failure: str | None = None  # why the pipeline stopped, in one sentence
        self._max_broken_share = max_broken_share
        self._first_broken = ""
        self._lock = threading.Lock()

    def parse(self, lines: Sequence[bytes], path: bytes) -> np.ndarray:
        """Returns the texts of some lines of a file, as an object array of UTF-8 bytes.

        Raises:
          UserError: too large a share of all lines so far is broken; also kept as `failure`.
        """
        texts = []
        with self._lock:
            for line in filter(_is_record, lines):
                text = _text_of(line)
                self.lines += 1
                if text is None:
                    self.broken += 1
                    self._first_broken = self._first_broken or _describe(line, path)
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
                    f"{given} has no text: {self.lines} lines were read and none has a "
                    "non-empty field 'text': give JSON-lines shards as C4 is distributed."
                )

    def _check_share(self) -> None:
        if self.broken > self._max_broken_share * self.lines:
            self._stop(
                f"MAX_BROKEN_LINES={self._max_broken_share} but {self.broken} of "
                f"{self.lines} lines are not JSON objects with a text in the field 'text', "
                f"the first {self._first_broken}: mend the files or raise MAX_BROKEN_LINES."
            )

    def _stop(self, reason: str) -> NoReturn:
        # The first reason stays: threads ahead of the batches read on until they are stopped.
        # Kept as text: an exception would keep the frames it went through, and so the pipeline.
        self.failure = self.failure or reason
        raise UserError(self.failure)


class Blocks:
    """The lines of files in numbered blocks; asked for in order, each file is read once."""

    def __init__(self) -> None:
        self._begun: dict[str, tuple[int, Iterator[list[bytes]]]] = {}
        self._lock = threading.Lock()

    def get(self, path: str, setting: str, number: int) -> list[bytes]:
        """Returns a block of a file, none after the last. Blocks passed over are not parsed."""
        with self._lock:
            next_number, blocks = self._begun.pop(path, (-1, iter(())))
        if next_number != number:
            blocks = itertools.islice(blocks_of(path, setting), number, None)
        block = next(blocks, [])
        if block:
            with self._lock:
                self._begun[path] = (number + 1, blocks)
        return block


def blocks_of(path: str, setting: str) -> Iterator[list[bytes]]:
    block, size = [], 0
    for line in read_lines(path, setting):
        block.append(line)
        size += len(line)
        if len(block) == _BLOCK_LINES or size >= _BLOCK_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block


def _is_record(line: bytes) -> bool:
    """An empty line is none; the beginning of one that is too long may look like it."""
    return bool(line.strip()) or isinstance(line, CutLine)


def _text_of(line: bytes) -> str | None:
    """The text of a line; None where the line is broken."""
    if isinstance(line, CutLine):
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    text = record.get("text") if isinstance(record, dict) else None
    return text if isinstance(text, str) else None


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


def _describe(line: bytes, path: bytes) -> str:
    excerpt = line.decode("utf-8", "replace")[:_EXCERPT_CHARS]
    return f"in {path.decode('utf-8', 'replace')!r}: {excerpt!r}{_what_it_is(line)}"


def _what_it_is(line: bytes) -> str:
    """What is wrong with a line, where that can be told."""
    if line.lstrip().startswith(b"["):
        return ", a JSON array where each line is to be an object"
    try:
        record = json.loads(line)
    except UnicodeDecodeError:
        return ", which is not UTF-8"
    except (ValueError, RecursionError):
        return ""
    fields = list(record) if isinstance(record, dict) else []
    if not fields or "text" in fields:
        return ""
    return f", whose fields are {', '.join(map(repr, fields[:5]))}"
