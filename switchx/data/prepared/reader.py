"""Reads the records of a prepared set by their number, and judges the broken ones."""

import threading
from pathlib import Path

import numpy as np

from switchx.data.prepared.records import decode
from switchx.data.prepared.set_plan import SetInfo, SetPlan
from switchx.data.prepared.shards import open_shards
from switchx.errors import UserError
from switchx.terminal import remark

MIN_RECORDS_TO_JUDGE = 1_000  # a share of fewer says little
Record = list[np.ndarray]


class RecordCounter:
    """Counts the records read and the broken ones among them; says when they are too many."""

    def __init__(self, max_broken_share: float) -> None:
        self.records = 0
        self.broken = 0
        self._max_broken_share = max_broken_share
        self._first = ""
        self._lock = threading.Lock()

    def note(self, records: int, broken: int, example: str) -> None:
        """Notes some records; `example` says where one of the broken ones stands.

        Raises:
          UserError: too large a share of all records so far is broken.
        """
        with self._lock:
            if broken and not self.broken:
                self._first = example
                remark(f"passing over broken data: {example}.")
            self.records += records
            self.broken += broken
            if self.records >= MIN_RECORDS_TO_JUDGE:
                self.judge(self.broken, self.records, self._first)

    def judge(self, broken: int, records: int, example: str) -> None:
        """Raises UserError where too large a share is broken."""
        if broken > self._max_broken_share * records:
            raise UserError(
                f"MAX_BROKEN_LINES={self._max_broken_share} but {broken:,} of {records:,} "
                f"records are broken, for one {example}: see `switchx data check`, mend the files "
                "or raise MAX_BROKEN_LINES."
            )


class SplitReader:
    """The records of one split of a set, numbered through its shards."""

    def __init__(self, folder: Path, info: SetInfo, split: str, counter: RecordCounter) -> None:
        """Raises UserError where a larger share of records than allowed is in no whole file."""
        if split not in info.shards:
            raise UserError(
                f"The set {str(folder)!r} has the splits {sorted(info.shards)} and lacks "
                f"{split!r}: prepare it with that split."
            )
        self._folder, self._plan = folder, info.plan
        self._counter = counter
        self._paths = [folder / info.plan.file(split, n) for n in range(len(info.shards[split]))]
        self.shards = open_shards(self._paths, info.shards[split])
        self._end_S = np.cumsum([facts.records for facts in info.shards[split]])
        self._salt_S = [facts.salt for facts in info.shards[split]]
        if not len(self):
            raise UserError(f"The split {split!r} of {str(folder)!r} holds no record.")
        self._check_files()

    def __len__(self) -> int:
        return int(self._end_S[-1])

    def read(self, record_R: np.ndarray) -> list[Record | None]:
        """The arrays of each record; None for one that is broken. Any thread may ask.

        Raises:
          UserError: too large a share of all records so far is broken.
        """
        shard_R = np.searchsorted(self._end_S, record_R, side="right")
        own_S = {int(shard): np.flatnonzero(shard_R == shard) for shard in np.unique(shard_R)}
        asked = {shard: self._numbers(shard, record_R[own]) for shard, own in own_S.items()}
        contents = self.shards.contents(asked)
        found: list[Record | None] = [None] * len(record_R)
        example = ""
        for shard, own in own_S.items():
            for row, number, content in zip(own, asked[shard], contents[shard], strict=True):
                found[row] = self._record(content, self._salt_S[shard])
                if found[row] is None:
                    example = f"record {number} of {str(self._paths[shard])!r}"
        self._counter.note(len(found), sum(record is None for record in found), example)
        return found

    def _numbers(self, shard: int, record_R: np.ndarray) -> list[int]:
        """Records of a shard, numbered from its own beginning."""
        return (record_R - (self._end_S[shard - 1] if shard else 0)).tolist()

    def _record(self, content: bytes | None, salt: int) -> Record | None:
        record = None if content is None else decode(content, self._plan.dtype, salt)
        return record if record is not None and fits(record, self._plan) else None

    def _check_files(self) -> None:
        lost, example = 0, ""
        for path, size, facts in zip(
            self._paths, self.shards.sizes(), self.shards.facts, strict=True
        ):
            if size != facts.bytes:
                lost += facts.records
                is_there = "is missing" if size is None else f"has {size:,} bytes"
                example = f"in {str(path)!r}, which {is_there} and should have {facts.bytes:,}"
        self._counter.judge(lost, len(self), example)
        if lost:
            remark(f"{lost:,} records are lost {example}.")


def fits(record: Record, plan: SetPlan) -> bool:
    """Whether a record has the lengths of what its set says: a row to corrupt, or examples."""
    if plan.cut is not None:
        return len(record) == 1 and 1 <= len(record[0]) <= plan.cut
    inputs, targets = (sum(map(len, record[side::2])) for side in (0, 1))
    rooms = plan.feature_lengths["inputs"], plan.feature_lengths["targets"]
    return len(record) % 2 == 0 and inputs <= rooms[0] and targets <= rooms[1]
