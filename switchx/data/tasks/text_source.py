"""A seqio source of files of text, whatever their format."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from switchx import storage
from switchx.data.tasks.text_files import Given
from switchx.data.tasks.texts import Blocks, LineCounter
from switchx.errors import UserError


class TextSource(seqio.FileDataSource):
    """Yields {'text': string} from text, JSON lines, JSON arrays and Parquet, plain or compressed.

    A file is read block by block in Python, and TensorFlow only counts the blocks: that count is
    what a saved position holds, and going to it reads the file from its beginning to there.

    Attributes:
      counter: of the records that were read.
      given: the setting and glob of each split.
      field: where the text lies in a record.
    """

    def __init__(
        self,
        given: Mapping[str, Given],
        field: str,
        max_broken_share: float,
        cycle_length: int = 16,
    ) -> None:
        """given: of each split; those without a glob are not there."""
        self.counter = LineCounter(max_broken_share, field)
        self.given = {split: found for split, found in given.items() if found.glob}
        self.field = field
        self._blocks = Blocks(field)
        self._settings: dict[str, str] = {}  # of each file that was listed
        super().__init__(
            read_file_fn=self._read_file,
            split_to_filepattern={split: found.glob for split, found in self.given.items()},
            cycle_length=cycle_length,
        )

    def list_shards(self, split: str) -> list[str]:
        return list(self.sizes(split))

    def sizes(self, split: str) -> dict[str, int]:
        """The files of a split, by name, and the bytes of each."""
        setting, glob = self.given[split]
        found = storage.list_files(str(glob), setting)
        self._settings.update(dict.fromkeys(found, setting))
        return found

    def get_dataset(self, split: str = "train", *args: Any, **kwargs: Any) -> tf.data.Dataset:
        texts = super().get_dataset(split, *args, **kwargs)
        ending = tf.data.Dataset.from_tensors("").map(lambda _: self._end_of_pass(split))
        # The ending is empty and filtered out: it is there to be reached.
        texts = texts.concatenate(ending).filter(lambda text: tf.strings.length(text) > 0)
        return texts.map(lambda text: {"text": text})

    def _read_file(self, path: tf.Tensor) -> tf.data.Dataset:
        numbers = tf.data.Dataset.range(2**62)
        blocks = numbers.map(lambda number: self._parse(path, number))
        whole = blocks.take_while(lambda _, more: more)
        return whole.map(lambda texts, _: texts).unbatch()

    def _parse(self, path: tf.Tensor, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        texts, more = tf.numpy_function(self._texts, [path, number], (tf.string, tf.bool))
        return tf.ensure_shape(texts, [None]), tf.ensure_shape(more, [])

    def _texts(self, path: bytes, number: int) -> tuple[np.ndarray, np.bool_]:
        """The texts of a file's block, and whether the file has that block."""
        name = path.decode()
        try:
            block = self._blocks.get(name, self._settings[name], int(number))
        except UserError as error:
            self.counter.failure = self.counter.failure or str(error)
            raise
        return self.counter.parse(block), np.bool_(bool(block.records))

    def _end_of_pass(self, split: str) -> tf.Tensor:
        def judge() -> np.ndarray:
            setting, glob = self.given[split]
            self.counter.finish_pass(f"{setting}={glob!r}")
            return np.array(b"", dtype=object)

        return tf.ensure_shape(tf.numpy_function(judge, [], tf.string), [])
