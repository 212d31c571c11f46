"""The rows of a Parquet file, a few at a time."""

import contextlib
from collections.abc import Collection, Iterator
from typing import Any, BinaryIO

from switchx.errors import UserError, first_line

_ROWS = 128  # that are held at once
_BUFFER = 2**20  # bytes of a column that are read ahead, in place of a whole row group


class ParquetRows:
    """A file's rows.

    Attributes:
      fields: names of all its columns.
      count: of its rows.
    """

    def __init__(self, file: BinaryIO, path: str, setting: str) -> None:
        """Raises UserError where it is damaged."""
        import pyarrow.parquet

        self._errors = lambda: _errors(path, setting)
        with self._errors():
            self._file = pyarrow.parquet.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False)
            self.fields = tuple(self._file.schema_arrow.names)
            self.count = int(self._file.metadata.num_rows)

    def rows(self, columns: Collection[str]) -> Iterator[tuple[dict[str, Any], int]]:
        """Yields the values of each row and about how many bytes they take.

        Args:
          columns: those that are needed, where there are any of them; else all are read.
        """
        chosen = [name for name in self.fields if name in columns] or list(self.fields)
        with self._errors():
            for batch in self._file.iter_batches(_ROWS, columns=chosen):
                size = batch.nbytes // max(1, batch.num_rows)
                for values in _with_texts(batch).to_pylist():
                    yield values, size


def _with_texts(batch: Any) -> Any:
    """Bytes as text where all of a column are: older writers do not say which are."""
    import pyarrow as pa

    for number, field in enumerate(batch.schema):
        if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
            with contextlib.suppress(pa.ArrowInvalid):
                batch = batch.set_column(number, field.name, batch.column(number).cast("string"))
    return batch


@contextlib.contextmanager
def _errors(path: str, setting: str) -> Iterator[None]:
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
