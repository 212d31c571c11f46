"""A seqio source of JSON-lines shards: one JSON object a line, its text in the field `text`."""

import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import seqio
import tensorflow as tf

from switchx.errors import UserError

MIN_LINES_TO_JUDGE = 1_000  # a share of fewer lines says little, until the files end
_LINES_PER_CALL = 128
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
            for line in lines:
                text = _text_of(line)
                self.lines += 1
                if text is None:
                    self.broken += 1
                    self._first_broken = self._first_broken or _describe(line, path)
                elif text.strip():
                    texts.append(text.encode("utf-8", "replace"))
            self.texts += len(texts)
            if self.lines >= MIN_LINES_TO_JUDGE:
                self._check_share()
        return np.array(texts, dtype=object)

    def finish_pass(self, pattern: str) -> None:
        """Judges what was read when all files have ended, however few lines they had."""
        with self._lock:
            self._check_share()
            if not self.texts:
                self._stop(
                    f"{pattern!r} has no text: {self.lines} lines were read and none has a "
                    "non-empty field 'text'; give JSON-lines shards as C4 is distributed."
                )

    def _check_share(self) -> None:
        if self.broken > self._max_broken_share * self.lines:
            self._stop(
                f"MAX_BROKEN_LINES is {self._max_broken_share} but {self.broken} of "
                f"{self.lines} lines are not JSON objects with a text in the field 'text', "
                f"the first {self._first_broken}; mend the files or raise MAX_BROKEN_LINES."
            )

    def _stop(self, reason: str) -> NoReturn:
        # The first reason stays: threads ahead of the batches read on until they are stopped.
        # Kept as text: an exception would keep the frames it went through, and so the pipeline.
        self.failure = self.failure or reason
        raise UserError(self.failure)


class JsonLinesSource(seqio.FileDataSource):
    """Yields {'text': string} from JSON-lines files, plain or (named .gz) compressed."""

    def __init__(self, patterns: Mapping[str, str], max_broken_share: float) -> None:
        """patterns: the glob of each split."""
        self.counter = LineCounter(max_broken_share)
        self.patterns = dict(patterns)
        super().__init__(read_file_fn=self._read_file, split_to_filepattern=self.patterns)

    def get_dataset(self, split: str = "train", *args: Any, **kwargs: Any) -> tf.data.Dataset:
        texts = super().get_dataset(split, *args, **kwargs)
        ending = tf.data.Dataset.from_tensors("").map(lambda _: self._end_of_pass(split))
        # The ending is empty and filtered out: it is there to be reached.
        texts = texts.concatenate(ending).filter(lambda text: tf.strings.length(text) > 0)
        return texts.map(lambda text: {"text": text})

    def _read_file(self, path: tf.Tensor) -> tf.data.Dataset:
        compression = tf.where(tf.strings.regex_full_match(path, r".*\.gz"), "GZIP", "")
        lines = tf.data.TextLineDataset(path, compression_type=compression)
        texts = lines.batch(_LINES_PER_CALL).map(lambda batch: self._parse(batch, path))
        return texts.unbatch()

    def _parse(self, lines: tf.Tensor, path: tf.Tensor) -> tf.Tensor:
        texts = tf.numpy_function(self.counter.parse, [lines, path], tf.string)
        return tf.ensure_shape(texts, [None])

    def _end_of_pass(self, split: str) -> tf.Tensor:
        def judge() -> np.ndarray:
            self.counter.finish_pass(self.patterns[split])
            return np.array(b"", dtype=object)

        return tf.ensure_shape(tf.numpy_function(judge, [], tf.string), [])


def _text_of(line: bytes) -> str | None:
    """The text of a line; None where the line is broken."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    text = record.get("text") if isinstance(record, dict) else None
    return text if isinstance(text, str) else None


def _describe(line: bytes, path: bytes) -> str:
    excerpt = line.decode("utf-8", "replace")[:_EXCERPT_CHARS]
    return f"in {path.decode('utf-8', 'replace')!r}: {excerpt!r}"
