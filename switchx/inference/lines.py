"""JSON lines with texts in, the same lines with answers out."""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TextIO

from switchx import storage
from switchx.errors import UserError
from switchx.inference.blanks import Answer

Row = dict[str, Any]


def read_rows(path: str) -> list[tuple[int, Row]]:
    """Line number and object of each line that is not blank; of standard input for "-".

    A lone surrogate, which no UTF-8 can hold, is read as training reads it: as "?".

    Raises:
      UserError: the file cannot be read, has no lines, or has one that is no object with a text.
    """
    stream: Iterable[bytes] = sys.stdin.buffer
    if path != "-":
        stream = storage.read_bytes(storage.as_path(path, "--input"), "--input").split(b"\n")
    rows = [(n, _parse(line, n)) for n, line in enumerate(stream, start=1) if line.strip()]
    if not rows:
        raise UserError(f'--input={path} has no lines: give lines such as {{"text": "a __"}}.')
    return rows


def _parse(line: bytes, number: int) -> Row:
    try:
        row = json.loads(line)
        row = json.loads(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:  # bytes that are no UTF-8 included
        raise UserError(f"line {number} of --input is not JSON ({error}).") from error
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        raise UserError(
            f'line {number} of --input is not an object with a string "text": give one such as '
            '{"text": "Return the __ of the list."}.'
        )
    return row


def encode_rows(
    rows: Sequence[tuple[int, Row]], encode: Callable[[str], list[int]]
) -> list[list[int]]:
    """The tokens of all texts.

    Raises:
      UserError: one cannot be encoded; its line is named.
    """
    tokens = []
    for number, row in rows:
        try:
            tokens.append(encode(row["text"]))
        except UserError as error:
            raise UserError(f"line {number} of --input: {error}") from error
    return tokens


def write_row(row: Row, answer: Answer, stream: TextIO) -> None:
    """Writes a line with what the model made of it, so that the stream's encoding can hold it."""
    line = row | {"output": answer.output, "blanks": answer.blanks, "filled": answer.filled}
    is_unicode = (stream.encoding or "utf-8").lower().replace("-", "") == "utf8"
    print(json.dumps(line, ensure_ascii=not is_unicode), file=stream, flush=True)


def check_output(path: str) -> None:
    """Raises UserError where `writing` would lose something or fail."""
    if path == "-":
        return
    target = storage.check_new(path, "--output")
    if storage.is_remote(target):
        return
    folder = target.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"--output={path} cannot be written: {folder} must be a writable folder.")


@contextlib.contextmanager
def writing(path: str) -> Iterator[TextIO]:
    """A stream to a file that is there when all of it is, or to standard output for "-"."""
    if path == "-":
        yield sys.stdout
        return
    file = storage.whole_file(storage.writable_path(path, "--output"))
    with file as part, part.open("x", encoding="utf-8") as stream:
        yield stream
