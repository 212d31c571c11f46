"""Texts in, in any format that training reads; JSON lines with answers out."""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

from switchx import storage
from switchx.data import files
from switchx.errors import UserError
from switchx.inference.blanks import Answer

Row = dict[str, Any]


def read_rows(path: str) -> list[tuple[str, Row]]:
    """Place and fields of each record that is not blank; of standard input for "-".

    A line of text is {"text": line}. A lone surrogate, which no UTF-8 can hold, is read as training
    reads it: as "?".

    Raises:
      UserError: the file cannot be read, has no records, or has one without a text.
    """
    file = _opened(path)
    rows = [
        (f"{file.format.unit} {record.number} of --input", _row(file, record))
        for record in file.read()
        if not record.is_blank
    ]
    if not rows:
        raise UserError(f'--input={path} has no lines: give lines such as {{"text": "a __"}}.')
    return rows


def _opened(path: str) -> files.Records:
    if path == "-":
        read1 = sys.stdin.buffer.read1  # type: ignore[union-attr]  # one end of file ends it
        chunks = iter(lambda: read1(2**20), b"")
        return files.Records("standard input", "--input", chunks)
    return files.open_records(os.fspath(storage.as_path(path, "--input")), "--input")


def _row(file: files.Records, record: files.Record) -> Row:
    row = file.values(record)
    if row is None or not isinstance(row.get("text"), str):
        there = f" (its fields are {', '.join(map(repr, row))})" if row else ""
        raise UserError(
            f'{file.format.unit} {record.number} of --input has no "text" that can be read{there}: '
            "give lines of text alone, or JSON objects alone, such as "
            '{"text": "Return the __ of the list."}.'
        )
    encoded = json.dumps(row, ensure_ascii=False, default=str).encode("utf-8", "replace")
    whole: Row = json.loads(encoded, parse_constant=lambda _: None)  # no JSON has a NaN
    return whole


def encode_rows(
    rows: Sequence[tuple[str, Row]], encode: Callable[[str], list[int]]
) -> list[list[int]]:
    """The tokens of all texts.

    Raises:
      UserError: one cannot be encoded; its place is named.
    """
    tokens = []
    for place, row in rows:
        try:
            tokens.append(encode(row["text"]))
        except UserError as error:
            raise UserError(f"{place}: {error}") from error
    return tokens


def write_row(row: Row, answer: Answer, stream: TextIO) -> None:
    """Writes a line with what the model made of it, so that the stream's encoding can hold it."""
    line = row | {"output": answer.output, "blanks": answer.blanks, "filled": answer.filled}
    is_unicode = (stream.encoding or "utf-8").lower().replace("-", "") == "utf8"
    print(json.dumps(line, ensure_ascii=not is_unicode), file=stream, flush=True)


def check_output(path: str) -> None:
    """Raises UserError where `writing` would lose something or fail."""
    if path != "-":
        storage.check_new_file(path, "--output")


@contextlib.contextmanager
def writing(path: str) -> Iterator[TextIO]:
    """A stream to a file that is there when all of it is, or to standard output for "-"."""
    if path == "-":
        yield sys.stdout
        return
    file = storage.whole_file(storage.writable_path(path, "--output"))
    with file as part, part.open("x", encoding="utf-8") as stream:
        yield stream
