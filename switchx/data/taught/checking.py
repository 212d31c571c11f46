"""Reads every record of a set of logits and says what is wrong with it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from switchx import storage
from switchx.data.config import DataConfig
from switchx.data.prepared.checking import check_shard
from switchx.data.prepared.set_plan import PREPARING
from switchx.data.taught.logit_set import (
    FILE,
    LogitPlan,
    LogitSet,
    file_of,
    folder_of_all,
    folder_of_set,
)
from switchx.data.taught.records import decode


@dataclasses.dataclass
class LogitReport:
    """What was found in a set of logits.

    Attributes:
      records, tokens: read, of those that are whole.
      broken: records that are not.
      problems: a sentence for each file that is not the one that was written.
    """

    records: int = 0
    tokens: int = 0
    broken: int = 0
    problems: list[str] = dataclasses.field(default_factory=list)


def names_of_sets(config: DataConfig) -> tuple[list[str], list[str]]:
    """The sets of logits beside a prepared set: those that are whole, and the unfinished ones."""
    whole, unfinished = [], []
    for name in sorted(storage.names_in(folder_of_all(config), "PREPARED_DIR")):
        there = storage.names_in(folder_of_set(config, name), "PREPARED_DIR")
        if FILE in there:
            whole.append(name)
        elif PREPARING in there:
            unfinished.append(name)
    return whole, unfinished


def check_logits(folder: Path, found: LogitSet, tick: Callable[[int], Any]) -> LogitReport:
    """Reads a set whole. `tick(n)` is called for every n records."""
    report = LogitReport()

    def take(content: bytes | None) -> bool:
        return _note(content, found.plan, report)

    for shard, facts in enumerate(found.shards):
        check_shard(folder / file_of(shard), facts, take, report, tick)
    report.problems = [f"{folder.name}/{problem}" for problem in report.problems]
    return report


def _note(content: bytes | None, plan: LogitPlan, report: LogitReport) -> bool:
    one = decode(content, plan.top_k, plan.vocab_size, plan.salt)
    if one is None or one.ids.max(initial=0) >= plan.vocab_size or np.isnan(one.logits).any():
        return False
    report.records += 1
    report.tokens += len(one.ids)
    return True
