"""The shards of a split as files: their records' bytes by number, wherever they lie."""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from switchx import storage
from switchx.data.prepared import record_index

_SETTING = "PREPARED_DIR"
Contents = dict[int, list[bytes | None]]


class FileFacts(Protocol):
    """What was written into a file of records."""

    @property
    def records(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def sha256(self) -> str: ...


class Shards(Protocol):
    """Files of records.

    Attributes:
      facts: what was written into each.
    """

    facts: Sequence[FileFacts]

    def sizes(self) -> list[int | None]:
        """Bytes of each file; None where it is missing. Another size is never read afterwards."""
        ...

    def contents(self, asked: Mapping[int, list[int]]) -> Contents:
        """The bytes of some records of some shards, by number; None for what cannot be read.

        Any thread may ask. UserError where a store does not answer.
        """
        ...


def open_shards(paths: Sequence[Path], facts: Sequence[FileFacts]) -> Shards:
    """The shards at these paths, all on this machine or all at URLs."""
    if any(map(storage.is_remote, paths)):
        return RemoteShards(paths, facts)
    return LocalShards(paths, facts)


class LocalShards:
    """Shards on this machine, each opened when it is first asked."""

    def __init__(self, paths: Sequence[Path], facts: Sequence[FileFacts]) -> None:
        self.facts = facts
        self._paths = paths
        self._readers: dict[int, Any] = {}
        self._lock = threading.Lock()

    def sizes(self) -> list[int | None]:
        sizes = [storage.size_of(path, _SETTING) for path in self._paths]
        self._readers.update(dict.fromkeys(_other_sizes(sizes, self.facts)))
        return sizes

    def contents(self, asked: Mapping[int, list[int]]) -> Contents:
        return {
            shard: read_records(self._reader(shard), numbers) for shard, numbers in asked.items()
        }

    def _reader(self, shard: int) -> Any:
        with self._lock:
            if shard not in self._readers:
                self._readers[shard] = open_records(self._paths[shard])
            return self._readers[shard]


class RemoteShards:
    """Shards at a URL: a request for each record, once it is known where a shard's records lie.

    Records that stand close together come by one request, and those of a shard that was copied to
    this machine by none: see `shard_copies`.
    """

    def __init__(self, paths: Sequence[Path], facts: Sequence[FileFacts]) -> None:
        self.paths, self.facts = paths, facts
        self._begins: dict[int, np.ndarray | None] = {}
        self._copies: dict[int, Any] = {}
        self._lock = threading.Lock()

    def sizes(self) -> list[int | None]:
        there = storage.sizes_in(self.paths[0].parent, _SETTING)
        sizes = [there.get(path.name) for path in self.paths]
        self._begins.update(dict.fromkeys(_other_sizes(sizes, self.facts)))
        return sizes

    def use_copy(self, shard: int, path: Path) -> None:
        """From now on this shard is read from a whole copy on this machine."""
        self._copies[shard] = open_records(path)

    def contents(self, asked: Mapping[int, list[int]]) -> Contents:
        found, far = {}, {}
        for shard, numbers in asked.items():
            copy = self._copies.get(shard)
            if copy is None:
                far[shard] = numbers
            else:
                found[shard] = read_records(copy, numbers)
        return found | self._far_contents(far)

    def _far_contents(self, asked: Mapping[int, list[int]]) -> Contents:
        found: Contents = {shard: [None] * len(numbers) for shard, numbers in asked.items()}
        begins = self._begins_of(asked)
        wanted = [
            (shard, row, storage.Part(self.paths[shard], *map(int, begin_R[number : number + 2])))
            for shard, begin_R in begins.items()
            for row, number in enumerate(asked[shard])
        ]
        contents = storage.read_parts([part for *_, part in wanted], _SETTING)
        for (shard, row, part), content in zip(wanted, contents, strict=True):
            found[shard][row] = record_index.record_of(content, part.begin)
        return found

    def _begins_of(self, shards: Mapping[int, Any]) -> dict[int, np.ndarray]:
        """Where the records of some shards begin; without those that are no such file."""
        with self._lock:  # whoever asks for the same ones meanwhile needs them too
            new = [shard for shard in shards if shard not in self._begins]
            tails = storage.read_parts([self._tail(shard) for shard in new], _SETTING)
            for shard, tail in zip(new, tails, strict=True):
                facts = self.facts[shard]
                self._begins[shard] = record_index.begins_of(tail, facts.bytes, facts.records)
            known = {shard: self._begins[shard] for shard in shards}
        return {shard: begins for shard, begins in known.items() if begins is not None}

    def _tail(self, shard: int) -> storage.Part:
        facts = self.facts[shard]
        tail = record_index.tail_bytes(facts.bytes, facts.records)
        return storage.Part(self.paths[shard], facts.bytes - tail, facts.bytes)


def _other_sizes(sizes: Sequence[int | None], facts: Sequence[FileFacts]) -> list[int]:
    """The shards that have not the bytes that were written."""
    return [shard for shard, size in enumerate(sizes) if size != facts[shard].bytes]


def open_records(path: Path) -> Any:
    """An ArrayRecord reader, or None where the file cannot be opened as one."""
    from array_record.python.array_record_module import ArrayRecordReader

    try:
        # No reading ahead: the next record asked for lies anywhere.
        return ArrayRecordReader(str(path), "readahead_buffer_size:0,max_parallelism:0")
    except Exception:  # it raises RuntimeError, ValueError or whatever its C++ side throws
        return None


def read_records(reader: Any, numbers: list[int]) -> list[bytes | None]:
    """Records of one file by their number; None for one that cannot be read, or of no reader."""
    if reader is None:
        return [None] * len(numbers)
    try:
        return list(reader.read(numbers))
    except Exception:  # a broken chunk fails the whole call: ask for each record by itself
        return [_one(reader, number) for number in numbers]


def _one(reader: Any, number: int) -> bytes | None:
    try:
        return bytes(reader.read([number])[0])
    except Exception:  # of whatever type its C++ side makes of a broken chunk
        return None
