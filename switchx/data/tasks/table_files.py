"""The rows of a file of labelled examples, Parquet or JSON lines, told apart by how it begins.

Nothing here needs TensorFlow. A row is a dict of what JSON knows: text, numbers, lists, dicts.
"""

import contextlib
import json
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

from switchx import storage
from switchx.data.tasks.lines import CutLine, read_lines
from switchx.errors import UserError, first_line

_PARQUET = b"PAR1"
_ROWS = 128  # of a Parquet file that are held at once
_EXCERPT = 60


class Row(NamedTuple):
    """One example of a file.

    Attributes:
      place: where it stands, as errors name it: "line 3 of 'a.jsonl'".
      values: of its fields, those that were asked for at least.
      fields: the names of all that it has.
    """

    place: str
    values: dict[str, Any]
    fields: tuple[str, ...]


def rows(path: str, setting: str, columns: Iterable[str] = ()) -> Iterator[Row]:
    """Yields the rows of a file in their order.

    Args:
      columns: those that are needed; others of a Parquet file are not read. None is all.

    Raises:
      UserError: the file cannot be read, or holds something else, in the name of the setting that
        led there.
    """
    with contextlib.closing(storage.open_to_seek(path, setting)) as file:
        if file.read(len(_PARQUET)) == _PARQUET:
            yield from _parquet(file, path, setting, set(columns))
            return
    yield from _json_lines(path, setting)


def count(path: str, setting: str) -> int:
    """How many rows a file has: a Parquet file says it, JSON lines are counted.

    Raises:
      UserError: as `rows`.
    """
    with contextlib.closing(storage.open_to_seek(path, setting)) as file:
        if file.read(len(_PARQUET)) == _PARQUET:
            with _parquet_errors(path, setting):
                return int(_open_parquet(file).metadata.num_rows)
    return sum(1 for line in read_lines(path, setting) if line.strip())


def _parquet(file: BinaryIO, path: str, setting: str, columns: set[str]) -> Iterator[Row]:
    number = 0
    with _parquet_errors(path, setting):
        parquet = _open_parquet(file)
        names = tuple(parquet.schema_arrow.names)
        chosen = [name for name in names if not columns or name in columns]
        for batch in parquet.iter_batches(_ROWS, columns=chosen or list(names)):
            for values in batch.to_pylist():
                number += 1
                yield Row(f"row {number} of {path!r}", values, names)


def _open_parquet(file: BinaryIO) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(file)


@contextlib.contextmanager
def _parquet_errors(path: str, setting: str) -> Iterator[None]:
    """Within, what pyarrow makes of a damaged or strange file becomes one sentence."""
    try:
        yield
    except (UserError, GeneratorExit):
        raise
    except Exception as error:  # pyarrow's own, and OSError, ValueError, UnicodeDecodeError
        raise UserError(
            f"{setting} leads to {path!r}, a Parquet file that cannot be read "
            f"({first_line(error)}): give a whole copy of it, or its rows as JSON lines."
        ) from error


def _json_lines(path: str, setting: str) -> Iterator[Row]:
    for number, line in enumerate(read_lines(path, setting), 1):
        if not line.strip():
            continue
        place = f"line {number} of {path!r}"
        values = None if isinstance(line, CutLine) else _parsed(line)
        if not isinstance(values, dict):
            raise UserError(
                f"{setting} leads to {place}, which {_what_it_is(line, values)}: give JSON lines, "
                "one object of an example's fields in each, or Parquet."
            )
        yield Row(place, values, tuple(values))


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _what_it_is(line: bytes, values: Any) -> str:
    if isinstance(line, CutLine):
        return "is too long"
    if isinstance(values, list):
        return "is a JSON array where each line is to be an object"
    return f"is no JSON object ({line[:_EXCERPT].decode('utf-8', 'replace')!r})"
