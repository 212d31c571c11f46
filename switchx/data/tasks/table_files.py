"""The rows of a file of labelled examples: what JSON lines, a JSON array or Parquet hold.

Nothing here needs TensorFlow. A row is a dict of what JSON knows: text, numbers, lists, dicts.
"""

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from switchx.data.files import TEXT, CutLine, Record, Records, open_records
from switchx.errors import UserError

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


def rows(path: str, setting: str, columns: Collection[str] = ()) -> Iterator[Row]:
    """Yields the rows of a file in their order.

    Args:
      columns: those that are needed; others of a Parquet file are not read. None is all.

    Raises:
      UserError: the file cannot be read, or holds something else, in the name of the setting that
        led there.
    """
    file = open_records(path, setting)
    for record in file.read(columns):
        if record.is_blank:
            continue
        values = None if file.format is TEXT else file.values(record)
        if values is None:
            raise UserError(
                f"{setting} leads to {file.place(record)}, which {_what_it_is(file, record)}: "
                "give JSON lines, one object of an example's fields in each, a JSON array of "
                "such, or Parquet."
            )
        yield Row(file.place(record), values, file.fields(values))


def count(path: str, setting: str) -> int:
    """How many rows a file has: a Parquet file says it, others are counted.

    Raises:
      UserError: as `rows`.
    """
    return open_records(path, setting).count()


def _what_it_is(file: Records, record: Record) -> str:
    if isinstance(record.content, CutLine):
        return "is too long"
    shown = record.content
    if isinstance(shown, bytes):
        shown = shown[:_EXCERPT].decode("utf-8", "replace")
    return f"is no JSON object ({str(shown)[:_EXCERPT]!r})"
