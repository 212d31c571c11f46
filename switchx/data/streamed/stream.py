"""Batches of a task: an endless, resumable stream to train on and a fixed pass to evaluate on."""

import atexit
import contextlib
import tempfile
import weakref
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from switchx.data.batches import Batch, joined, watch
from switchx.data.config import DataConfig, check_values
from switchx.data.streamed import pipeline, position
from switchx.data.tasks import lookup, sources
from switchx.data.tasks.texts import LineCounter
from switchx.errors import UserError, first_line

_PREFETCHED_BLOCKS = 2


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
        settings = position.settings_of(config, lookup.open_vocabulary(config).digest)
        self._shards = {shard: _Shard(config, settings, shard) for shard in shards}
        _until_exit(self)

    def __iter__(self) -> "StreamedStream":
        return self

    def __next__(self) -> Batch:
        read = lambda: [shard.take(self._rows) for shard in self._shards.values()]  # noqa: E731
        return joined(watch(read, self._config))

    def skip(self, examples: int) -> None:
        left = examples // self._config.shards
        while left:
            rows = min(left, self._rows)
            watch(lambda: [shard.take(rows) for shard in self._shards.values()], self._config)  # noqa: B023
            left -= rows

    @property
    def _rows(self) -> int:
        """Of a batch that are one shard's."""
        return self._config.batch_size // self._config.shards

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
    """One shard of the training data: an iterator, and where it stands.

    The iterator gives blocks of rows, as many as a batch had when the run began. It goes on with
    them after a resume with another size of batch: what it keeps is blocks of that size.
    """

    def __init__(self, config: DataConfig, settings: Mapping[str, Any], number: int) -> None:
        self._config, self._settings, self._number = config, settings, number
        self._provider = lookup.find_provider(config)  # its own: it counts the shard's lines
        sources.check_sources(self._provider, config, ["train"])
        self._block = config.batch_size // config.shards
        self._blocks = self._build()
        self._left: Batch = {}  # the rows of the last block that nobody has taken
        self._iterator: Any = None  # from the first block, or the first position, on

    def take(self, rows: int) -> Batch:
        """The next so many rows."""
        parts = []
        while rows:
            block = self._left or self._next_block()
            count = min(rows, _count(block))
            parts.append({name: x_BL[:count] for name, x_BL in block.items()})
            left = {name: x_BL[count:] for name, x_BL in block.items()}
            self._left = left if _count(left) else {}
            rows -= count
        return joined(parts)

    def _next_block(self) -> Batch:
        with pipeline.reporting_errors(self._provider, self._config):
            block = next(self._started(), None)
        if block is None:
            of = f"shard {self._number} of DATA_SHARDS={self._config.shards} of "
            raise UserError(
                f"MIXTURE_OR_TASK_NAME={self._config.mixture_or_task_name!r} fills no batch of "
                f"{self._block} rows; {of if self._config.shards > 1 else ''}its training split is "
                "empty or too small."
            )
        return {name: tensor.numpy() for name, tensor in block.items()}

    def counters(self) -> list[LineCounter]:
        return pipeline.line_counters(self._provider)

    def state(self) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = tf.train.Checkpoint(iterator=self._started())
            checkpoint.write(str(Path(folder) / position.PREFIX))
            saved = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        counts = [[c.lines, c.broken, c.texts] for c in self.counters()]
        at = position.Position(self._block, counts, saved, self._left)
        return position.pack(self._settings, at)

    def restore(self, state: bytes) -> None:
        at = position.unpack(state, self._settings)
        if at.left and _kinds(at.left) != self._kinds():
            raise position.damaged("its rows are of other features")
        if self._iterator is not None or at.block != self._block:
            # Shuffling keeps part of its state outside the iterator: a used one is not clean.
            self._block, self._iterator = at.block, None
            self._blocks = self._build()
        self._left = at.left
        with tempfile.TemporaryDirectory() as folder:
            for name, content in at.files.items():
                (Path(folder) / name).write_bytes(content)
            try:
                checkpoint = tf.train.Checkpoint(iterator=self._started())
                checkpoint.read(str(Path(folder) / position.PREFIX)).assert_consumed()
            except (tf.errors.OpError, ValueError, AssertionError) as error:
                raise position.damaged(first_line(error)) from error
        for counter, count in zip(self.counters(), at.counts, strict=False):
            counter.lines, counter.broken, counter.texts = count

    def close(self) -> None:
        self._iterator = iter(())

    def _build(self) -> tf.data.Dataset:
        rows = pipeline.endless(self._provider, self._config, self._number, self._block)
        blocks = rows.batch(self._block, drop_remainder=True)
        return blocks.prefetch(_PREFETCHED_BLOCKS).with_options(pipeline.reproducible())

    def _kinds(self) -> dict[str, tuple[Any, int]]:
        spec = self._blocks.element_spec
        return {name: (x.dtype.as_numpy_dtype, x.shape[1]) for name, x in spec.items()}

    def _started(self) -> Any:
        if self._iterator is None:
            self._iterator = iter(self._blocks)
        return self._iterator


def _count(rows: Batch) -> int:
    return len(rows["encoder_input_tokens"])


def _kinds(rows: Batch) -> dict[str, tuple[Any, int]]:
    return {name: (x_BL.dtype.type, x_BL.shape[1]) for name, x_BL in rows.items()}


def evaluation_batches(config: DataConfig, task: str | None = None) -> Iterator[Batch]:
    """Returns the first batches of the validation split, the same ones at every call.

    With `task` they are of this task, one of the config's mixture.

    Every batch has config.rows_per_eval_batch rows: the last is filled up with rows of zeros,
    whose loss weights are zero.
    """
    check_values(config)
    if task is not None:
        config = config.of_task(task)
    provider = lookup.find_provider(config)
    sources.check_sources(provider, config, ["validation"])
    batches = pipeline.one_pass(provider, config, "validation").batch(config.rows_per_eval_batch)
    most = -1 if config.eval_batches is None else config.eval_batches
    return _until_exit(_filled_batches(batches.take(most), provider, config))


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
