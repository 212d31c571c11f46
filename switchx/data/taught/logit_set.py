"""A set of logits: what they were written with, its shards, and logits.json that says so."""

import dataclasses
import functools
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from switchx import storage
from switchx.data.config import DataConfig
from switchx.data.prepared.set_plan import MAX_BYTES, NAME, PREPARING, folder_of
from switchx.data.streamed.position import differences
from switchx.errors import UserError

FILE = "logits.json"
FOLDER = "taught"  # in that of the task or mixture
_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class LogitPlan:
    """What decides every byte of a set of logits, but for how many examples it has.

    Attributes:
      settings: by the name of their macros; of some what decides stands behind what is shown, as in
        a position of the data (`streamed.position`). Among them the order of the examples, since
        an example's spans are drawn anew in each epoch of each SEED.
      teacher: the record of its checkpoint: "path", "step", "seal".
      vocabulary: the fingerprint of the teacher's; None where it is not known.
      top_k, vocab_size: of each target's logits.
      shard_examples: in each shard but the last.
    """

    settings: Mapping[str, Any]
    teacher: Mapping[str, Any]
    vocabulary: str | None
    top_k: int
    vocab_size: int
    shard_examples: int

    @functools.cached_property
    def salt(self) -> int:
        """With which the checksums of the records begin."""
        return zlib.crc32(json.dumps(dataclasses.asdict(self), sort_keys=True).encode())

    def shards(self, examples: int) -> list[int]:
        """The examples in each shard of so many."""
        firsts = range(0, examples, self.shard_examples)
        return [min(self.shard_examples, examples - first) for first in firsts]


@dataclasses.dataclass(frozen=True)
class LogitFacts:
    """What a finished shard holds: examples, and of these the targets that count; its file."""

    records: int
    tokens: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class LogitSet:
    """A whole set: its plan and the facts of each shard."""

    plan: LogitPlan
    shards: Sequence[LogitFacts]

    @property
    def examples(self) -> int:
        """How many there are logits of: the first of a run."""
        return sum(facts.records for facts in self.shards)

    @property
    def tokens(self) -> int:
        """Targets that count."""
        return sum(facts.tokens for facts in self.shards)

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(facts.bytes for facts in self.shards)

    def text(self) -> str:
        """The content of logits.json."""
        content = {
            "format": _FORMAT,
            "plan": dataclasses.asdict(self.plan),
            "shards": [dataclasses.asdict(facts) for facts in self.shards],
        }
        return storage.with_checksum(content)


def folder_of_all(config: DataConfig) -> Path:
    """Where the sets of logits of a task or mixture lie, each in a folder of its name."""
    return folder_of(str(config.prepared_dir), config.mixture_or_task_name) / FOLDER


def folder_of_set(config: DataConfig, name: str) -> Path:
    """Where the set of logits of this name lies.

    Raises:
      UserError: the name cannot be that of a folder, or there is no prepared set to lie beside.
    """
    if not NAME.fullmatch(name):
        raise UserError(
            f"TEACHER_LOGITS={name!r} cannot name a folder beside the prepared set: use letters, "
            "digits and any of '_.:-'."
        )
    if config.prepared_dir is None:
        raise UserError(
            f"TEACHER_LOGITS={name!r} lies beside a prepared set, and PREPARED_DIR is not set: "
            "prepare the task (`switchx data prepare`), or set TEACHER_LOGITS=None."
        )
    return folder_of_all(config) / name


def file_of(shard: int) -> str:
    """A shard's file name."""
    return f"logits-{shard:05d}.array_record"


def read_set(config: DataConfig, name: str) -> LogitSet:
    """Reads logits.json.

    Raises:
      UserError: it is not there, or damaged.
    """
    folder = folder_of_set(config, name)
    content = storage.read_if_there(folder / FILE, "PREPARED_DIR", MAX_BYTES)
    if content is None:
        unfinished = storage.is_folder(folder / PREPARING, "PREPARED_DIR")
        state, advice = ("unfinished", "again to go on") if unfinished else ("no", "first")
        raise UserError(
            f"TEACHER_LOGITS={name!r}: PREPARED_DIR={config.prepared_dir!r} holds {state} logits "
            f"of that name for {config.mixture_or_task_name!r}: run `switchx data teach` {advice}."
        )
    return parse_set(content, str(folder / FILE))


def parse_set(content: bytes, path: str) -> LogitSet:
    """The set that the bytes of a logits.json describe.

    Raises:
      UserError: they are damaged.
    """
    try:
        read = storage.checked(content, _FORMAT)
        plan = LogitPlan(**read["plan"])
        shards = [LogitFacts(**facts) for facts in read["shards"]]
        _check_plan(plan)
        if not all(isinstance(x, int) for of in shards for x in (of.records, of.tokens, of.bytes)):
            raise ValueError("a number in shards")
        found = LogitSet(plan, shards)
        if not shards or plan.shards(found.examples) != [facts.records for facts in shards]:
            raise ValueError("its shards are not those of its plan")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path!r} is damaged ({str(error)[:100] or type(error).__name__}): copy the logits "
            "again, or remove their folder and run `switchx data teach`."
        ) from error
    return found


def parse_plan(content: bytes) -> LogitPlan:
    """The plan in some JSON.

    Raises:
      ValueError, TypeError, KeyError: there is none.
    """
    plan = LogitPlan(**json.loads(content))
    _check_plan(plan)
    return plan


def _check_plan(plan: LogitPlan) -> None:
    """Raises ValueError or TypeError where a plan from a file makes no sense."""
    if not (0 < plan.top_k <= plan.vocab_size < 2**31) or plan.shard_examples < 1:
        raise ValueError("top_k, vocab_size or shard_examples")
    kinds = {"path": str, "step": int, "seal": str}
    if not all(isinstance(plan.teacher[name], kind) for name, kind in kinds.items()):
        raise ValueError("teacher")
    if not isinstance(plan.settings, dict):
        raise ValueError("settings")


def check_same(plan: LogitPlan, wanted: Mapping[str, Any], name: str) -> None:
    """Raises UserError for the first of these settings that logits were not written with."""
    for setting, here, there, although in differences(plan.settings, wanted):
        raise UserError(
            f"{setting}={here!r}, but the logits TEACHER_LOGITS={name!r} were written with "
            f"{there!r}{although}: set that, or give TEACHER_LOGITS another name and run "
            "`switchx data teach`."
        )
