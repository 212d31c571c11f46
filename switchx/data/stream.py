"""Batches of a task: an endless, resumable stream to train on and a fixed pass to evaluate on."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from switchx.data import lookup, position, sources, tasks, vocabulary_choice
from switchx.data.config import Batch, DataConfig, check_values
from switchx.data.files import first_line
from switchx.data.json_lines import JsonLinesSource, LineCounter
from switchx.errors import UserError

_EVAL_SEED = 0  # the same blanks in every run, whatever its SEED
_PREFETCHED_BATCHES = 2


class TrainStream:
    """The training batches of a config, without end, reshuffled each epoch.

    The batch at a step depends on the config's seed and the step alone.
    """

    def __init__(self, config: DataConfig) -> None:
        """Raises UserError where the config's task, vocabulary or data is missing."""
        check_values(config)
        self._config = config
        self._provider = lookup.find_provider(config)
        sources.check_sources(self._provider, config)
        vocabulary = vocabulary_choice.open_vocabulary(config, self._provider)
        self._identity = position.identity_of(config, vocabulary.fingerprint)
        self._batches = self._build()
        self._iterator: Any = None  # from the first batch, or the first position, on

    def __iter__(self) -> "TrainStream":
        return self

    def __next__(self) -> Batch:
        """Returns the next batch; UserError where the data turns out to be broken or empty."""
        with reporting_errors(self._provider, self._config):
            batch = next(self._started(), None)
        if batch is None:
            raise UserError(
                f"MIXTURE_OR_TASK_NAME {self._config.mixture_or_task_name!r} fills no batch of "
                f"{self._config.batch_size} rows; its training split is empty or too small."
            )
        return {name: tensor.numpy() for name, tensor in batch.items()}

    def state(self) -> bytes:
        """Returns the position after the batches returned so far, for `restore`."""
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = tf.train.Checkpoint(iterator=self._started())
            checkpoint.write(str(Path(folder) / position.PREFIX))
            saved = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        counts = [[c.lines, c.broken, c.texts] for c in self._counters()]
        return position.pack(self._identity, counts, saved)

    def restore(self, state: bytes) -> None:
        """Goes to a position: the next batch is, bit for bit, the one that would have followed.

        Raises:
          UserError: the position is damaged, or of other data than this stream's.
        """
        counts, saved = position.unpack(state, self._identity)
        if self._iterator is not None:
            # Shuffling keeps part of its state outside the iterator: a used one is not clean.
            self._batches, self._iterator = self._build(), None
        with tempfile.TemporaryDirectory() as folder:
            for name, content in saved.items():
                (Path(folder) / name).write_bytes(content)
            try:
                checkpoint = tf.train.Checkpoint(iterator=self._started())
                checkpoint.read(str(Path(folder) / position.PREFIX)).assert_consumed()
            except (tf.errors.OpError, ValueError, AssertionError) as error:
                raise position.damaged(first_line(error)) from error
        for counter, count in zip(self._counters(), counts, strict=False):
            counter.lines, counter.broken, counter.texts = count

    def report(self) -> dict[str, int]:
        """What the user should know about the data read so far, ahead of the batches; or {}."""
        counters = self._counters()
        if not counters:
            return {}
        return {
            "lines": sum(counter.lines for counter in counters),
            "broken_lines": sum(counter.broken for counter in counters),
        }

    def _build(self) -> tf.data.Dataset:
        config = self._config
        rows = _rows(self._provider, config, "train", config.seed, shuffle=True, num_epochs=None)
        batches = rows.batch(config.batch_size, drop_remainder=True)
        return batches.prefetch(_PREFETCHED_BATCHES).with_options(_options())

    def _started(self) -> Any:
        if self._iterator is None:
            self._iterator = iter(self._batches)
        return self._iterator

    def _counters(self) -> list[LineCounter]:
        return _counters(self._provider)


def evaluation_batches(config: DataConfig) -> Iterator[Batch]:
    """Returns the first batches of the validation split, the same ones at every call.

    Every batch has config.rows_per_eval_batch rows: the last is filled up with rows of zeros,
    whose loss weights are zero.
    """
    check_values(config)
    provider = lookup.find_provider(config)
    sources.check_sources(provider, config)
    batches = one_pass(provider, config, "validation").batch(config.rows_per_eval_batch)
    return _filled_batches(batches.take(config.eval_batches), provider, config)


def one_pass(provider: Any, config: DataConfig, split: str) -> tf.data.Dataset:
    """The rows of a split once, in order."""
    rows = _rows(provider, config, split, _EVAL_SEED, shuffle=False, num_epochs=1)
    return rows.with_options(_options())


@contextlib.contextmanager
def reporting_errors(provider: Any, config: DataConfig) -> Iterator[None]:
    """Turns what TensorFlow raises while it reads into one sentence."""
    try:
        yield
    except tf.errors.OpError as error:
        for counter in _counters(provider):
            if counter.error is not None:
                raise counter.error from None
        raise UserError(
            f"MIXTURE_OR_TASK_NAME {config.mixture_or_task_name!r} cannot be read: "
            f"{first_line(error)}"
        ) from error


def _filled_batches(
    batches: tf.data.Dataset, provider: Any, config: DataConfig
) -> Iterator[Batch]:
    empty = True
    with reporting_errors(provider, config):
        for batch in batches:
            empty = False
            arrays = {name: tensor.numpy() for name, tensor in batch.items()}
            yield {name: _filled(x, config.rows_per_eval_batch) for name, x in arrays.items()}
    if empty:
        raise UserError(
            f"MIXTURE_OR_TASK_NAME {config.mixture_or_task_name!r} gives no example for the split "
            "'validation'; its files are empty or hold too little text."
        )


def _filled(x_BL: np.ndarray, rows: int) -> np.ndarray:
    return np.pad(x_BL, ((0, rows - x_BL.shape[0]), (0, 0)))


def _rows(
    provider: Any, config: DataConfig, split: str, seed: int, shuffle: bool, num_epochs: int | None
) -> tf.data.Dataset:
    build = _build_rows
    if not tasks.needs_autograph(provider):
        build = tf.autograph.experimental.do_not_convert(build)
    try:
        return build(provider, dict(config.feature_lengths), split, seed, shuffle, num_epochs)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"MIXTURE_OR_TASK_NAME {config.mixture_or_task_name!r} cannot be built with "
            f"TASK_FEATURE_LENGTHS {dict(config.feature_lengths)}: {first_line(error)}"
        ) from error


def _build_rows(
    provider: Any,
    lengths: dict[str, int],
    split: str,
    seed: int,
    shuffle: bool,
    num_epochs: int | None,
) -> tf.data.Dataset:
    rows = provider.get_dataset(
        lengths,
        split=split,
        shuffle=shuffle,
        seed=seed,
        num_epochs=num_epochs,
        try_in_mem_cache=False,  # a cache would be part of every saved position
    )
    rows = seqio.EncDecFeatureConverter(pack=False)(rows, task_feature_lengths=lengths)
    return rows.map(_with_float_weights)


def _with_float_weights(row: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    weights = tf.cast(row["decoder_loss_weights"], tf.float32)
    return {**row, "decoder_loss_weights": weights}


def _counters(provider: Any) -> list[LineCounter]:
    sources_read = (task.source for task in seqio.get_subtasks(provider))
    return [source.counter for source in sources_read if isinstance(source, JsonLinesSource)]


def _options() -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    # Parsing JSON is Python, which a saved position cannot hold and does not need to.
    options.experimental_external_state_policy = tf.data.experimental.ExternalStatePolicy.IGNORE
    return options
