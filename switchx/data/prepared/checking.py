"""Reads every record of a prepared set and says what is wrong with it."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from switchx.data.prepared.counter_random import key_of
from switchx.data.prepared.reader import Record, fits, open_records, read_records
from switchx.data.prepared.records import decode
from switchx.data.prepared.set_plan import SetInfo, SetPlan, ShardFacts

_RECORDS_PER_READ = 512


@dataclasses.dataclass
class SplitReport:
    """What was found in one split.

    Attributes:
      records, tokens: read, of those that are whole.
      broken: records that are not.
      short: rows shorter than a full one, as the last of joined documents is.
      sentinels: tokens of the text that are sentinels, which corruption takes for its own.
      problems: a sentence for each file that is not what the set says, and for the first broken
        record of each.
    """

    records: int = 0
    tokens: int = 0
    broken: int = 0
    short: int = 0
    sentinels: int = 0
    problems: list[str] = dataclasses.field(default_factory=list)


def check_split(folder: Path, info: SetInfo, split: str, tick: Callable[[int], Any]) -> SplitReport:
    """Reads a split whole. `tick(n)` is called for every n records."""
    report = SplitReport()
    for shard, facts in enumerate(info.shards[split]):
        _check_shard(folder, info.plan, split, shard, facts, report, tick)
    return report


def _check_shard(
    folder: Path,
    plan: SetPlan,
    split: str,
    shard: int,
    facts: ShardFacts,
    report: SplitReport,
    tick: Callable[[int], Any],
) -> None:
    path = folder / plan.file(split, shard)
    problem = _file_problem(path, facts)
    if problem:
        report.problems.append(f"{path.name} {problem}")
    reader = open_records(path) if path.is_file() else None
    if reader is None:
        report.broken += facts.records
        return
    tokens_before, broken_before = report.tokens, report.broken
    count = reader.num_records()
    if count != facts.records:
        report.problems.append(f"{path.name} has {count:,} records, not {facts.records:,}")
        report.broken += max(facts.records - count, 0)
    for start in range(0, count, _RECORDS_PER_READ):
        numbers = range(start, min(start + _RECORDS_PER_READ, count))
        contents = read_records(reader, list(numbers))
        records = [_whole(content, plan, facts.salt) for content in contents]
        _check_records(dict(zip(numbers, records, strict=True)), plan, report, path.name)
        tick(len(numbers))
    if report.broken > broken_before:
        report.problems.append(f"{path.name} has {report.broken - broken_before:,} broken records")
    elif report.tokens - tokens_before != facts.tokens:
        found = report.tokens - tokens_before
        report.problems.append(f"{path.name} has {found:,} tokens, not {facts.tokens:,}")


def _file_problem(path: Path, facts: ShardFacts) -> str | None:
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    if size != facts.bytes:
        return f"has {size:,} bytes, not {facts.bytes:,}"
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return None if digest == facts.sha256 else "is not the file that was written (SHA-256)"


def _whole(content: bytes | None, plan: SetPlan, salt: int) -> Record | None:
    """The record in these bytes; None where it is not one of this shard."""
    record = None if content is None else decode(content, plan.dtype, salt)
    if record is None or not fits(record, plan) or not _known(record, plan):
        return None
    return record


def _check_records(
    found: dict[int, Record | None], plan: SetPlan, report: SplitReport, name: str
) -> None:
    """Looks at some records of a file, by number; None is a broken one."""
    whole = {number: record for number, record in found.items() if record is not None}
    report.broken += len(found) - len(whole)
    report.records += len(whole)
    report.tokens += sum(len(array) for record in whole.values() for array in record)
    if plan.cut is None:
        return
    by_length: dict[int, list[int]] = {}
    for number, (tokens,) in whole.items():
        by_length.setdefault(len(tokens), []).append(number)
    for length, numbers in by_length.items():
        token_RN = np.stack([whole[number][0] for number in numbers])
        report.short += len(numbers) * (length < plan.cut)
        _, spans = plan.corruption.counts(max(length, 2))
        report.sentinels += int(np.count_nonzero(token_RN > plan.corruption.first_sentinel - spans))
        problem = corruption_problem(token_RN, plan, key_of(np.array(numbers)))
        if problem:
            report.problems.append(f"record {numbers[0]} of {name} {problem}")


def _known(record: list[np.ndarray], plan: SetPlan) -> bool:
    """Whether the vocabulary has all tokens of a record."""
    return all(int(tokens.max(initial=0)) < plan.vocab_size for tokens in record)


def corruption_problem(token_RN: np.ndarray, plan: SetPlan, key_R: np.ndarray) -> str | None:
    """What is wrong with rows of one length once corrupted: they come out too long or too short."""
    inputs_RI, targets_RT = plan.corruption.corrupt(token_RN, key_R)
    for name, row_RL, ends in zip(
        ("inputs", "targets"), (inputs_RI, targets_RT), plan.add_eos, strict=True
    ):
        if row_RL.shape[1] + ends > plan.feature_lengths[name]:
            return f"makes {row_RL.shape[1] + ends} {name}"
    if inputs_RI.shape[1] + targets_RT.shape[1] <= token_RN.shape[1]:
        return "lost tokens when it was corrupted"
    return None
