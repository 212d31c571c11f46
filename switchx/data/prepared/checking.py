"""Reads every record of a prepared set and says what is wrong with it."""

import contextlib
import dataclasses
import hashlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from switchx import storage
from switchx.data.prepared.reader import Record, fits
from switchx.data.prepared.records import decode
from switchx.data.prepared.set_plan import SetInfo, SetPlan
from switchx.data.prepared.shards import FileFacts, open_records, read_records

RECORDS_PER_READ = 512


@dataclasses.dataclass
class SplitReport:
    """What was found in one split.

    Attributes:
      records, tokens: read, of those that are whole.
      broken: records that are not.
      short: rows shorter than a full one, as the last of joined documents is.
      sentinels: tokens of the text that are sentinels, which corruption takes for its own.
      problems: a sentence for each file that is not the one that was written.
    """

    records: int = 0
    tokens: int = 0
    broken: int = 0
    short: int = 0
    sentinels: int = 0
    problems: list[str] = dataclasses.field(default_factory=list)


def check_split(folder: Path, info: SetInfo, split: str, tick: Callable[[int], Any]) -> SplitReport:
    """Reads a split whole. `tick(n)` is called for every n records."""
    report, plan = SplitReport(), info.plan
    for shard, facts in enumerate(info.shards[split]):

        def take(content: bytes | None, salt: int = facts.salt) -> bool:
            return _note(_whole(content, plan, salt), plan, report)

        check_shard(folder / plan.file(split, shard), facts, take, report, tick)
    return report


class Report(Protocol):
    """What `check_shard` adds to: of records that are not whole how many, and what is wrong."""

    broken: int
    problems: list[str]


def check_shard(
    url: Path,
    facts: FileFacts,
    take: Callable[[bytes | None], bool],
    report: Report,
    tick: Callable[[int], Any],
) -> None:
    """Reads a shard whole.

    Args:
      take: is given each record, None for one that is broken; says whether it is whole.
      tick: is called for every n records with n.
    """
    with here(url) as path:
        reader = open_records(path) if path.is_file() else None
        count = reader.num_records() if reader is not None else 0
        broken = max(facts.records - count, 0)
        for start in range(0, count, RECORDS_PER_READ):
            numbers = list(range(start, min(start + RECORDS_PER_READ, count)))
            broken += sum(not take(content) for content in read_records(reader, numbers))
            tick(len(numbers))
        problem = file_problem(path, facts)
    report.broken += broken
    if broken:
        problem = f"{problem or 'is damaged'}: {broken:,} of {facts.records:,} records broken"
    if problem:
        report.problems.append(f"{url.name} {problem}")


@contextlib.contextmanager
def here(path: Path) -> Iterator[Path]:
    """The shard on this machine: of one at a URL a copy, as long as it is needed."""
    if not storage.is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / path.name
        if storage.is_file(path, "PREPARED_DIR"):
            storage.download(path, copy, "PREPARED_DIR")
        yield copy


def _whole(content: bytes | None, plan: SetPlan, salt: int) -> Record | None:
    """The record in these bytes; None where it is not one of this shard."""
    record = None if content is None else decode(content, plan.dtype, salt)
    if record is None or not fits(record, plan):
        return None
    known = all(int(tokens.max(initial=0)) < plan.vocab_size for tokens in record)
    return record if known else None


def _note(record: Record | None, plan: SetPlan, report: SplitReport) -> bool:
    if record is None:
        return False
    report.records += 1
    report.tokens += sum(map(len, record))
    if plan.cut is not None:
        (tokens,) = record
        _, spans = plan.corruption.counts(max(len(tokens), 2))
        report.short += len(tokens) < plan.cut
        number = (tokens.astype(np.int64) - plan.corruption.first_sentinel) * plan.corruption.step
        report.sentinels += int(np.count_nonzero((number >= 0) & (number < spans)))
    return True


def file_problem(path: Path, facts: FileFacts) -> str | None:
    """What is wrong with a file as a whole, said of its name; None where nothing is."""
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    if size != facts.bytes:
        return f"has {size:,} bytes, not {facts.bytes:,}"
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return None if digest == facts.sha256 else "is not the file that was written (SHA-256)"
