"""Batches of prepared sets: the n-th batch is computed from n, so that nothing is ever replayed."""

import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from switchx.data.batches import Batch, watched
from switchx.data.config import DataConfig, check_values
from switchx.data.prepared import shard_copies
from switchx.data.prepared.counter_random import key_of
from switchx.data.prepared.order import Order, Places
from switchx.data.prepared.reader import RecordCounter, SplitReader
from switchx.data.prepared.rows import empty_batch, fill
from switchx.data.prepared.set_plan import SetInfo
from switchx.data.prepared.sets import rates, set_folder, set_infos
from switchx.data.prepared.shard_copies import Copies
from switchx.data.prepared.shards import RemoteShards
from switchx.data.streamed.position import check_settings, damaged, mixture_settings
from switchx.data.tasks.rates import starts_of

# Against slow storage; more than there are cores would only take turns on them.
READING_THREADS = min(8, os.cpu_count() or 1)
ROWS_OF_A_BLOCK = 1024
_BLOCKS = 2**31  # more than any run has: the stream has no end
_CORRUPTION = 3  # what a key is for, beside those of `order`
_FORMAT = "prepared 2"
_EVAL_SEED = 0  # the same blanks in every run, whatever its SEED


class PreparedSets:
    """The sets of a task or a mixture, by rate, and their records of one split."""

    def __init__(self, config: DataConfig, split: str, name: str | None = None) -> None:
        """Raises UserError where a set is missing, damaged or was cut with other settings."""
        self.counter = RecordCounter(config.max_broken_share)
        infos, own = set_infos(config, name), rates(config, name)
        self.infos = [info for info in infos if split in info.shards] or infos[:1]
        self.tasks = [info.plan.task for info in self.infos]
        self.rates = [own[task] for task in self.tasks]
        folders = [set_folder(config, info.plan.task) for info in self.infos]
        self.readers = [
            SplitReader(folder, info, split, self.counter)
            for folder, info in zip(folders, self.infos, strict=True)
        ]
        self._lengths, self._pack = config.feature_lengths, config.pack

    @property
    def lengths(self) -> list[int]:
        """Records of each set."""
        return [len(reader) for reader in self.readers]

    def batch(self, places: Places, seed: int) -> Batch:
        """The examples at some places, as a batch of as many rows.

        Raises:
          UserError: too large a share of the records is broken.
        """
        batch = empty_batch(self._lengths, len(places.task_R), self._pack)
        for task in np.unique(places.task_R):
            rows = np.flatnonzero(places.task_R == task)
            record_R = places.record_R[rows]
            key_R = key_of(_CORRUPTION, seed, int(task), places.epoch_R[rows], record_R)
            records = self.readers[task].read(record_R)
            fill(batch, rows, self.infos[task].plan, records, key_R)
        return batch


class _Blocks:
    """What Grain reads: some shards' rows of a few batches at a time, or one where it has many.

    Most of what a row costs is spent per call, not per row. The first row of the first batch is
    the example `first` of the run.
    """

    def __init__(
        self,
        config: DataConfig,
        sets: PreparedSets,
        order: Order,
        shards: Sequence[int],
        first: int,
    ) -> None:
        self._sets, self._seed, self._batch_size = sets, config.seed, config.batch_size
        self._order, self._first = order, first
        per_shard = config.batch_size // config.shards
        self._row_R = np.concatenate(
            [np.arange(shard * per_shard, (shard + 1) * per_shard) for shard in shards]
        )
        self._batches = -(-ROWS_OF_A_BLOCK // len(self._row_R))

    def __len__(self) -> int:
        return _BLOCKS

    def __getitem__(self, number: Any) -> list[Batch]:
        batch = int(number) * self._batches
        batch_N1 = np.arange(batch, batch + self._batches)[:, None]
        example_NR = self._first + batch_N1 * self._batch_size + self._row_R
        block = self._sets.batch(self._order.places(example_NR.ravel()), self._seed)
        parts = {name: np.split(x, self._batches) for name, x in block.items()}
        return [{name: x[n] for name, x in parts.items()} for n in range(self._batches)]


class PreparedStream:
    """The training rows of some shards of a config, without end, in a new order each epoch.

    The row r of a batch is the example r behind those of the batches before, in the order of
    `order.Order`, whatever shards or hosts there are. So a position is a number of examples, and
    goes on with any size of batch and any number of shards.
    """

    def __init__(self, config: DataConfig, shards: Sequence[int] = (0,)) -> None:
        """Raises UserError where a set is missing, damaged or was cut with other settings."""
        check_values(config)
        self._config = config
        self._sets = PreparedSets(config, "train")
        self._shards = tuple(shards)
        self._settings = settings_of(config, set_infos(config))
        self._began_with = config.batch_size  # by which the steps of MIXTURE_STARTS are examples
        self._order = self._ordered()
        self._copies = copies_of(config, self._sets)
        self._next = 0  # example of the run, of all shards
        self._iterator: Iterator[Batch] | None = None  # from the first batch on

    def __iter__(self) -> "PreparedStream":
        return self

    def __next__(self) -> Batch:
        if self._iterator is None:
            self._iterator = self._read_ahead()
        batch = next(self._iterator)
        self._next += self._config.batch_size
        return batch

    def skip(self, examples: int) -> None:
        self._next, self._iterator = self._next + examples, None

    def state(self) -> dict[int, bytes]:
        content = {"format": _FORMAT, "identity": self._settings, "example": self._next}
        if self._config.mixture_starts:
            content["batch_size"] = self._began_with
        return {shard: json.dumps(content).encode() for shard in self._shards}

    def restore(self, states: Mapping[int, bytes]) -> None:
        found = {place_of(states[shard], self._settings) for shard in self._shards}
        if len(found) != 1:
            raise damaged("its shards stand at different examples")
        (self._next, began_with), self._iterator = found.pop(), None
        self._began_with = began_with or self._config.batch_size
        self._order = self._ordered()

    def report(self) -> dict[str, int]:
        counter = self._sets.counter
        if not counter.broken:
            return {}
        return {"records": counter.records, "broken_records": counter.broken}

    def close(self) -> None:
        self._iterator = iter(())
        self._copies.stop()

    def _ordered(self) -> Order:
        """The order of the run's examples: a function of its settings alone, and how it began."""
        config, sets = self._config, self._sets
        steps = starts_of(config.mixture_starts, sets.tasks, config.mixture_or_task_name)
        firsts = [step * self._began_with for step in steps]
        return Order(sets.lengths, sets.rates, config.seed, firsts)

    def _read_ahead(self) -> Iterator[Batch]:
        import grain

        blocks = _Blocks(self._config, self._sets, self._order, self._shards, self._next)
        options = grain.ReadOptions(READING_THREADS, prefetch_buffer_size=READING_THREADS)
        ahead = grain.MapDataset.source(blocks).to_iter_dataset(options)
        # A limit costs a thread: by the block, and not by the batch.
        blocks_ahead = self._copying(watched(iter(ahead), self._config))
        return itertools.chain.from_iterable(blocks_ahead)

    def _copying(self, blocks: Iterator[list[Batch]]) -> Iterator[list[Batch]]:
        """The same; whoever takes more than a few examples has shards copied to this machine."""
        yield next(blocks)
        self._copies.start(saying=0 in self._shards)
        yield from blocks


def copies_of(config: DataConfig, sets: PreparedSets) -> Copies:
    """What copies the shards of sets at a URL to this machine; of sets that lie here none."""
    remote = [reader.shards for reader in sets.readers if isinstance(reader.shards, RemoteShards)]
    limit = int(config.prepared_cache_gb * 1e9)
    return Copies(remote, config.cache_path / shard_copies.FOLDER, limit)


def evaluation_batches(config: DataConfig, name: str | None = None) -> Iterator[Batch]:
    """Yields the first batches of the validation split of a task or mixture, always the same.

    Every batch has config.rows_per_eval_batch rows: the last is filled up with rows of zeros,
    whose loss weights are zero.
    """
    check_values(config)
    sets = PreparedSets(config, "validation", name)
    order, rows = Order(sets.lengths, sets.rates, None), config.rows_per_eval_batch
    for places in itertools.islice(order.each_once(rows), config.eval_batches):
        missing = rows - len(places.task_R)
        batch = sets.batch(places, _EVAL_SEED)
        yield {name: np.pad(x, ((0, missing), (0, 0))) for name, x in batch.items()}


def settings_of(config: DataConfig, infos: Sequence[SetInfo]) -> dict[str, Any]:
    """What a position is only valid for: the order is the same for any batch and any shards."""
    sets = [json.dumps(rates(config)), *(info.text(with_sources=False) for info in infos)]
    digest = hashlib.sha256("".join(sets).encode()).hexdigest()
    return {
        "MIXTURE_OR_TASK_NAME": config.mixture_or_task_name,
        **mixture_settings(config),
        "PREPARED_DIR": [config.prepared_dir, digest[:16]],
        "SEED": config.seed,
    }


def place_of(state: bytes, settings: Mapping[str, Any]) -> tuple[int, int | None]:
    """The example of the run that a position stands before, and the batch that the run began with.

    The batch's size is None where no task joins late.

    Raises:
      UserError: the position is damaged, or of other settings.
    """
    try:
        content = json.loads(state)
        saved, number = dict(content["identity"]), content["example"]
        began_with = content.get("batch_size")
        if content["format"] != _FORMAT or not isinstance(number, int) or number < 0:
            raise ValueError
        if began_with is not None and (not isinstance(began_with, int) or began_with < 1):
            raise ValueError
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise damaged("it is not one of prepared data") from error
    check_settings(saved, settings)
    return number, began_with
