"""Batches of a task: an endless, resumable stream to train on and a fixed pass to evaluate on."""

import atexit
import contextlib
import dataclasses
import tempfile
import weakref
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from switchx.data.batches import Batch, watch
from switchx.data.config import DataConfig, check_values
from switchx.data.streamed import pipeline, position
from switchx.data.tasks import lookup, sources
from switchx.data.tasks.json_texts import LineCounter
from switchx.errors import UserError, first_line

_PREFETCHED_BATCHES = 2


class StreamedStream:
    """The training rows of some shards of a config, without end, reshuffled each epoch.

    A shard's rows at a step depend on the config's seed and number of shards, and on the step.
    """

    def __init__(self, config: DataConfig, shards: Sequence[int] = (0,)) -> None:
        """Raises UserError where the config's task, vocabulary or data is missing.

        Args:
          shards: numbers from 0, in the order in which their rows follow each other in a batch.
        """
        check_values(config)
        self._config = config
        self._shards = {shard: _Shard(config, shard) for shard in shards}
        _until_exit(self)

    def __iter__(self) -> "StreamedStream":
        return self

    def __next__(self) -> Batch:
        parts = watch(lambda: [next(shard) for shard in self._shards.values()], self._config)
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def state(self) -> dict[int, bytes]:
        return {number: shard.state() for number, shard in self._shards.items()}

    def restore(self, states: Mapping[int, bytes]) -> None:
        for number, shard in self._shards.items():
            shard.restore(states[number])

    def report(self) -> dict[str, int]:
        counters = [c for shard in self._shards.values() for c in shard.counters()]
        if not counters:
            return {}
        return {
            "lines": sum(counter.lines for counter in counters),
            "broken_lines": sum(counter.broken for counter in counters),
        }

    def close(self) -> None:
        for shard in self._shards.values():
            shard.close()


class _Shard:
    """One shard of the training data: an iterator, and where it stands."""

    def __init__(self, config: DataConfig, number: int) -> None:
        self._config, self._number = config, number
        self._provider = lookup.find_provider(config)  # its own: it counts the shard's lines
        sources.check_sources(self._provider, config, ["train"])
        vocabulary = lookup.open_vocabulary(config, self._provider)
        self._settings = position.settings_of(config, vocabulary.digest)
        self._batches = self._build()
        self._iterator: Any = None  # from the first batch, or the first position, on

    def __next__(self) -> Batch:
        with pipeline.reporting_errors(self._provider, self._config):
            batch = next(self._started(), None)
        if batch is None:
            of = f"shard {self._number} of DATA_SHARDS={self._config.shards} of "
            raise UserError(
                f"MIXTURE_OR_TASK_NAME={self._config.mixture_or_task_name!r} fills no batch of "
                f"{self._rows} rows; {of if self._config.shards > 1 else ''}its training split is "
                "empty or too small."
            )
        return {name: tensor.numpy() for name, tensor in batch.items()}

    def counters(self) -> list[LineCounter]:
        return pipeline.line_counters(self._provider)

    def state(self) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = tf.train.Checkpoint(iterator=self._started())
            checkpoint.write(str(Path(folder) / position.PREFIX))
            saved = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        counts = [[c.lines, c.broken, c.texts] for c in self.counters()]
        return position.pack(self._settings, counts, saved)

    def restore(self, state: bytes) -> None:
        counts, saved = position.unpack(state, self._settings)
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
        for counter, count in zip(self.counters(), counts, strict=False):
            counter.lines, counter.broken, counter.texts = count

    def close(self) -> None:
        self._iterator = iter(())

    @property
    def _rows(self) -> int:
        """Of a batch that are this shard's."""
        return self._config.batch_size // self._config.shards

    def _build(self) -> tf.data.Dataset:
        rows = pipeline.endless(self._provider, self._config, self._number)
        batches = rows.batch(self._rows, drop_remainder=True)
        return batches.prefetch(_PREFETCHED_BATCHES).with_options(pipeline.reproducible())

    def _started(self) -> Any:
        if self._iterator is None:
            self._iterator = iter(self._batches)
        return self._iterator


def evaluation_batches(config: DataConfig, task: str | None = None) -> Iterator[Batch]:
    """Returns the first batches of the validation split, the same ones at every call.

    With `task` they are of this task, one of the config's mixture.

    Every batch has config.rows_per_eval_batch rows: the last is filled up with rows of zeros,
    whose loss weights are zero.
    """
    check_values(config)
    if task is not None:
        config = dataclasses.replace(config, mixture_or_task_name=task)
    provider = lookup.find_provider(config)
    sources.check_sources(provider, config, ["validation"])
    batches = pipeline.one_pass(provider, config, "validation").batch(config.rows_per_eval_batch)
    return _until_exit(_filled_batches(batches.take(config.eval_batches), provider, config))


def _filled_batches(
    batches: tf.data.Dataset, provider: Any, config: DataConfig
) -> Generator[Batch, None, None]:
    empty = True
    with pipeline.reporting_errors(provider, config):
        for batch in batches:
            empty = False
            arrays = {name: tensor.numpy() for name, tensor in batch.items()}
            yield {name: _filled(x, config.rows_per_eval_batch) for name, x in arrays.items()}
    if empty:
        raise UserError(
            f"MIXTURE_OR_TASK_NAME={config.mixture_or_task_name!r} gives no example for the split "
            "'validation': its files are empty or hold too little text."
        )


def _filled(x_BL: np.ndarray, rows: int) -> np.ndarray:
    return np.pad(x_BL, ((0, rows - x_BL.shape[0]), (0, 0)))


T = TypeVar("T")
_open: weakref.WeakSet[Any] = weakref.WeakSet()


def _until_exit(closable: T) -> T:
    """Closes something when the program ends, if it still exists by then.

    A TensorFlow thread that asks for Python while Python shuts down waits forever, and the
    program with it.
    """
    _open.add(closable)
    return closable


@atexit.register
def _close_all() -> None:
    for closable in list(_open):
        with contextlib.suppress(ValueError):  # a generator that another thread is in
            closable.close()
