"""The elements of one JSON array, read one after the other and never all of them at once."""

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from switchx.data.files import lines

_SPACE = re.compile(r"[ \t\r\n]*")
_ENDS = tuple(" \t\r\n,]")  # behind anything else a number may go on
_DECODER = json.JSONDecoder()
_TAIL = 12  # characters of what may be cut off at the end of a buffer: \ud83d\ude00, -Infinity


class ArrayError(Exception):
    """Why a JSON array cannot be read on, in a few words, and the number of the element."""


def elements_of(chunks: Iterable[bytes]) -> Iterator[tuple[Any, int]]:
    """Yields the elements of the array that a file holds, and how many characters each took.

    Raises:
      ArrayError: it is no JSON array, or not in UTF-8, or it ends too early.
    """
    buffer, number = _Buffer(chunks), 1
    buffer.take("[")
    if buffer.next_is("]"):
        buffer.take("]")
    else:
        while True:
            yield buffer.value(number)
            if not buffer.next_is(","):
                break
            buffer.take(",")
            number += 1
        buffer.take("]", number)
    if not buffer.next_is(""):
        raise ArrayError("something stands behind the end of the array")


class _Buffer:
    """What was read of the file and not yet taken, as text."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._text, self._at, self._whole = "", 0, False

    def next_is(self, mark: str) -> bool:
        """Whether the next character but space is this one; "" for the end of the file."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text):
                return self._text[self._at] == mark
            if self._whole:
                return mark == ""
            self._read_on()

    def take(self, mark: str, number: int = 1) -> None:
        if not self.next_is(mark):
            ended = self._at == len(self._text)
            where = "it ends too early" if ended else f"{self._text[self._at :][:20]!r}"
            raise ArrayError(f"at element {number}: {where} where {mark!r} should be")
        self._at += len(mark)

    def value(self, number: int) -> tuple[Any, int]:
        """The next value, and its characters."""
        self.next_is("")  # takes the space before it
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except RecursionError:
                raise ArrayError(f"element {number} is nested too deeply") from None
            except json.JSONDecodeError as error:
                if self._whole or not self._may_be_cut(error):
                    raise ArrayError(f"element {number} is not JSON ({error.msg})") from None
            else:
                if (
                    self._whole
                    or self._text[end : end + 1] in _ENDS
                    or len(self._text) > end + _TAIL
                ):
                    size, self._at = end - self._at, end
                    return value, size
            if len(self._text) - self._at > lines.MAX_LINE_BYTES:
                raise ArrayError(f"element {number} is longer than {lines.MAX_LINE_BYTES:,} bytes")
            self._read_on(len(self._text) - self._at)

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        """Whether more of the file could make it right."""
        return error.msg.startswith("Unterminated") or error.pos >= len(self._text) - _TAIL

    def _read_on(self, least: int = 1) -> None:
        """Reads some more: of a long value as much again, so that trying takes no square of it."""
        parts, size = [self._text[self._at :]], 0
        self._at = 0
        while size < least and not self._whole:
            chunk = next(self._chunks, None)
            self._whole = chunk is None
            try:
                parts.append(self._decode(chunk or b"", self._whole))
            except UnicodeDecodeError:
                raise ArrayError("it is not UTF-8") from None
            size += len(parts[-1])
        self._text = "".join(parts)
