"""A seqio source of files of labelled examples, in the place of a TFDS dataset."""

import itertools
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import seqio
import tensorflow as tf
import tensorflow_datasets as tfds

from switchx import storage
from switchx.data.files import check_formats
from switchx.data.tasks import table_files
from switchx.data.tasks.given_files import check_there, setting_of
from switchx.data.tasks.table_fields import Field, Places
from switchx.data.tasks.table_files import Row
from switchx.errors import UserError

_TYPES = {"text": tf.string, "integer": tf.int32, "number": tf.float32, "label": tf.int64}
_EMPTY = {"text": "", "integer": 0, "number": 0.0, "label": 0}


class TableSource(seqio.FileDataSource):
    """Yields the examples of Parquet or JSON-lines files as TFDS would: nested dicts of tensors.

    TensorFlow counts a file's rows and Python reads them: the count is what a saved position holds,
    and going to it reads the file from its beginning to there.

    Attributes:
      patterns: the glob of each split.
      failure: why reading stopped, in one sentence.
    """

    def __init__(
        self,
        patterns: Mapping[str, str],
        fields: Mapping[str, Field],
        places: Mapping[str, Places],
        origin: str | None,
    ) -> None:
        """places: where the fields lie in a split's files; origin: where such files come from."""
        self.patterns = dict(patterns)
        self.failure: str | None = None
        self._fields = dict(fields)
        self._places = dict(places)
        self._origin = origin
        self._readers: dict[str, _Reader] = {}  # of each file that was listed
        # One file after the other: predictions stand in the order of the files.
        super().__init__(self._read_file, self.patterns, cycle_length=1)

    def list_shards(self, split: str) -> list[str]:
        return list(self.sizes(split))

    def sizes(self, split: str) -> dict[str, int]:
        """The files of a split, by name, and the bytes of each."""
        found = storage.list_files(self.patterns[split], setting_of(split))
        for path in found:
            self._readers.setdefault(path, _Reader(path, setting_of(split), self._places[split]))
        return found

    def num_input_examples(self, split: str) -> int:
        setting = setting_of(split)
        return sum(table_files.count(path, setting) for path in self.sizes(split))

    def check(self, split: str) -> None:
        """Reads the first example of a split; UserError where no file is there, or not that."""
        check_formats(check_there(self.patterns[split], split, self._origin), setting_of(split))
        for path in self.list_shards(split)[:1]:
            for row in self._readers[path].rows():
                self._places[split].values(row)
                break

    def _read_file(self, path: tf.Tensor) -> tf.data.Dataset:
        numbers = tf.data.Dataset.range(2**62)
        rows = numbers.map(lambda number: self._row(path, number))
        return rows.take_while(lambda more, _: more).map(lambda _, row: row)

    def _row(self, path: tf.Tensor, number: tf.Tensor) -> tuple[tf.Tensor, dict[str, Any]]:
        types = [_TYPES[field.kind] for field in self._fields.values()]
        more, *values = tf.numpy_function(self._values, [path, number], [tf.bool, *types])
        flat = {
            name: tf.ensure_shape(value, [None] if field.many else [])
            for (name, field), value in zip(self._fields.items(), values, strict=True)
        }
        return tf.ensure_shape(more, []), _nested(flat)

    def _values(self, path: bytes, number: int) -> list[Any]:
        """Whether a file has a row of a number, and its fields."""
        try:
            row = self._readers[path.decode()].get(int(number))
        except UserError as error:
            self.failure = self.failure or str(error)
            raise
        values = row or {}
        arrays = [_array(values.get(name), field) for name, field in self._fields.items()]
        return [np.bool_(row is not None), *arrays]


class _Reader:
    """A file's rows by number; asked for in order, the file is read once."""

    def __init__(self, path: str, setting: str, places: Places) -> None:
        self._path, self._setting, self._places = path, setting, places
        self._begun: tuple[int, Iterator[Row]] = (-1, iter(()))
        self._lock = threading.Lock()

    def rows(self) -> Iterator[Row]:
        return table_files.rows(self._path, self._setting, self._places.columns)

    def get(self, number: int) -> dict[str, Any] | None:
        """The fields of a row; None after the last. Rows passed over are not looked at."""
        with self._lock:
            next_number, rows = self._begun
            if next_number != number:
                rows = itertools.islice(self.rows(), number, None)
            row = next(rows, None)
            self._begun = (number + 1, rows)
        return None if row is None else self._places.values(row)


def _array(value: Any, field: Field) -> np.ndarray:
    kind = _TYPES[field.kind].as_numpy_dtype
    if value is None:
        value = [] if field.many else _EMPTY[field.kind]
    if field.kind == "text":
        encoded = [text.encode("utf-8", "replace") for text in (value if field.many else [value])]
        return np.array(encoded if field.many else encoded[0], dtype=object)
    return np.array(value, dtype=kind)


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{'answers/text': x} as {'answers': {'text': x}}."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *outer, last = name.split("/")
        inner = nested
        for part in outer:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return nested


def fields_of(features: Any, prefix: str = "", many: bool = False) -> dict[str, Field]:
    """The fields of a TFDS dataset's features, by their names.

    Raises:
      UserError: one is neither text, number nor label, nor a list of these.
    """
    if isinstance(features, tfds.features.FeaturesDict):
        return {
            name: field
            for part, inner in features.items()
            for name, field in fields_of(inner, f"{prefix}{part}/", many).items()
        }
    if isinstance(features, tfds.features.Sequence) and not many:
        return fields_of(features.feature, prefix, many=True)
    name = prefix.rstrip("/")
    if isinstance(features, tfds.features.ClassLabel):
        return {name: Field("label", many, tuple(features.names))}
    kinds = {tf.string: "text", tf.int32: "integer", tf.int64: "integer", tf.float32: "number"}
    if features.shape == () and features.tf_dtype in kinds:
        return {name: Field(kinds[features.tf_dtype], many)}
    raise UserError(
        f"TASK_FILES is set, and the field {name!r} of this task's dataset is no text, number or "
        "label: read it from TFDS_DATA_DIR."
    )
