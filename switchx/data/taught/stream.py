"""The batches of a run with what a teacher wrote of them."""

import collections
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as LateError
from typing import Any

import numpy as np

from switchx.data.batches import Batch, Stream, too_late
from switchx.data.config import DataConfig
from switchx.data.prepared.shards import open_shards
from switchx.data.prepared.stream import READING_THREADS
from switchx.data.taught.logit_set import LogitSet, file_of, folder_of_set, read_set
from switchx.data.taught.records import Taught, bytes_per_token, decode, put
from switchx.errors import UserError

_AHEAD_BYTES = 2**30  # of batches that wait


class LogitReader:
    """The logits of examples by number."""

    def __init__(self, config: DataConfig, name: str, found: LogitSet) -> None:
        """Raises UserError where a file is missing or has another size than was written."""
        self._plan, self.examples, self._name = found.plan, found.examples, name
        folder = folder_of_set(config, name)
        self._paths = [folder / file_of(shard) for shard in range(len(found.shards))]
        self._shards = open_shards(self._paths, found.shards)
        for path, size, facts in zip(self._paths, self._shards.sizes(), found.shards, strict=True):
            if size != facts.bytes:
                is_there = "is missing" if size is None else f"has {size:,} bytes"
                raise UserError(
                    f"TEACHER_LOGITS={name!r}: {str(path)!r} {is_there} and should have "
                    f"{facts.bytes:,}: run `switchx data teach` again, which writes it anew."
                )

    def read(self, example_R: np.ndarray) -> list[Taught | None]:
        """What is found of each example; None for what cannot be read. Any thread may ask."""
        shard_R, number_R = np.divmod(example_R, self._plan.shard_examples)
        own_S = {int(shard): np.flatnonzero(shard_R == shard) for shard in np.unique(shard_R)}
        asked = {shard: number_R[own].tolist() for shard, own in own_S.items()}
        contents = self._shards.contents(asked)
        found: list[Taught | None] = [None] * len(example_R)
        plan = self._plan
        for shard, own in own_S.items():
            for row, content in zip(own, contents[shard], strict=True):
                found[row] = decode(content, plan.top_k, plan.vocab_size, plan.salt)
        return found

    def refusal(self, example: int) -> UserError:
        """What is to be said of logits that are broken, or of another example."""
        shard, number = divmod(example, self._plan.shard_examples)
        path = str(self._paths[shard])
        return UserError(
            f"TEACHER_LOGITS={self._name!r}: record {number} of {path!r} is damaged or of another "
            "example: see `switchx data check`, remove that file and run `switchx data teach` "
            "again, which writes it anew."
        )


class TaughtStream:
    """A stream of the same rows with their logits (`switchx.data.batches.Stream`).

    The logits of a batch are those of its examples' numbers in the run, whatever its size.

    Args:
      stream: of prepared data.
      shards: those of the data that it reads.
    """

    def __init__(
        self, stream: Stream, config: DataConfig, name: str, shards: Sequence[int]
    ) -> None:
        """Raises UserError where the logits are not there whole."""
        self._stream, self._config = stream, config
        found = read_set(config, name)
        self._plan, self._name = found.plan, name
        self._reader = LogitReader(config, name, found)
        per_shard = config.batch_size // config.shards
        self._row_R = np.concatenate(
            [np.arange(shard * per_shard, (shard + 1) * per_shard) for shard in shards]
        )
        per_token = bytes_per_token(self._plan.top_k, self._plan.vocab_size)
        row_bytes = max(config.feature_lengths.values()) * per_token
        most = _AHEAD_BYTES // (row_bytes * len(self._row_R))
        self._ahead = max(1, min(READING_THREADS, most))
        self._pool = ThreadPoolExecutor(self._ahead, "logits")
        self._waiting: collections.deque[Future[list[Taught | None]]] = collections.deque()
        self._go_to_its_place()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        batch, example_R = next(self._stream), self._next + self._row_R
        plan = self._plan
        wrong = put(batch, self._read(example_R), plan.top_k, plan.vocab_size)
        if wrong:
            raise self._reader.refusal(int(example_R[wrong[0]]))
        self._next += self._config.batch_size
        return batch

    def skip(self, examples: int) -> None:
        self._stream.skip(examples)
        self._go_to_its_place()

    def state(self) -> dict[int, bytes]:
        return self._stream.state()

    def restore(self, states: Mapping[int, bytes]) -> None:
        self._stream.restore(states)
        self._go_to_its_place()

    def report(self) -> dict[str, int]:
        return self._stream.report()

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._stream.close()

    def _go_to_its_place(self) -> None:
        self._next = example_of(self._stream)
        self._waiting.clear()

    def _read(self, example_R: np.ndarray) -> list[Taught | None]:
        """Of these examples, which are the next; those behind them are asked for too."""
        size, last = self._config.batch_size, self._reader.examples
        if example_R[-1] >= last:
            raise UserError(
                f"TEACHER_LOGITS={self._name!r} has the logits of {last:,} examples, and this run "
                f"takes more: run `switchx data teach` with a larger TRAIN_STEPS, which adds to "
                "them, and then the same command."
            )
        while len(self._waiting) <= self._ahead:
            ahead_R = example_R + len(self._waiting) * size
            if ahead_R[-1] >= last:
                break
            self._waiting.append(self._pool.submit(self._reader.read, ahead_R))
        try:
            return self._waiting.popleft().result(self._config.timeout)
        except LateError:
            raise too_late(self._config) from None


def example_of(stream: Any) -> int:
    """The number of the run's example that a stream of prepared data stands before."""
    content = json.loads(next(iter(stream.state().values())))
    return int(content["example"])
