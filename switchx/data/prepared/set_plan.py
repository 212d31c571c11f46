"""What a prepared set is: the settings it was cut with, its shards, and set.json that says so."""

import dataclasses
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from switchx import storage
from switchx.data.config import FEATURES, DataConfig
from switchx.data.prepared.records import TOKEN_TYPES, token_type
from switchx.data.prepared.spans import SpanCorruption
from switchx.data.tasks import names
from switchx.errors import UserError

FILE = "set.json"
MIXTURE_FILE = "mixture.json"
VOCABULARY_FILE = "vocabulary.model"  # the SentencePiece model that its text was tokenized with
SETTINGS = "settings"  # among the sources of each split, those that say what is taken of files
_BEFORE = {"TEXT_FIELD": "text"}  # of sets that were made before these were noted
PREPARING = "preparing"  # a folder that is there until the set is whole
_FORMAT = 1
_LONGEST = 2**16  # tokens of a row
MAX_BYTES = 64 << 20  # of set.json: some 200 bytes a shard
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*")


@dataclasses.dataclass(frozen=True)
class SetPlan:
    """The settings that decide every byte of a set.

    Attributes:
      task: its name in seqio.
      feature_lengths: TASK_FEATURE_LENGTHS.
      vocabulary: digest of the vocabulary.
      vocab_size: ids are below it.
      eos_id: end of sequence.
      cut: tokens of an uncorrupted row; None where the task is not span corruption. Its records
        are then examples as the task makes them, inputs and targets in turns.
      density, mean_span: of span corruption, which happens when a row is read.
      add_eos: whether a corrupted row ends with end of sequence, in inputs and targets.
      pack: whether a record of examples holds several.
      shards: number of shards of each split.
      sentinels: the first one's id and the step to the next; None, and not written, where they are
        a vocabulary's last ids, as T5's.
      mode: tokens that stand before the inputs of every row; None, and not written, for none.
    """

    task: str
    feature_lengths: Mapping[str, int]
    vocabulary: str
    vocab_size: int
    eos_id: int
    cut: int | None
    density: float
    mean_span: float
    add_eos: Sequence[bool]
    pack: bool
    shards: Mapping[str, int]
    sentinels: Sequence[int] | None = None
    mode: Sequence[int] | None = None

    @property
    def as_written(self) -> dict[str, Any]:
        """Its settings by name, as set.json has them."""
        settings = dataclasses.asdict(self)
        left_out = [name for name in ("sentinels", "mode") if settings[name] is None]
        return {name: value for name, value in settings.items() if name not in left_out}

    @property
    def dtype(self) -> str:
        """Of the tokens in the records."""
        return token_type(self.vocab_size)

    @property
    def corruption(self) -> SpanCorruption:
        """How rows are corrupted."""
        first, step = self.sentinels or (self.vocab_size - 1, -1)
        return SpanCorruption(self.density, self.mean_span, first, step)

    def file(self, split: str, shard: int) -> str:
        """A shard's file name. Names are made, never read: they cannot lead elsewhere."""
        return f"{split}-{shard:05d}-of-{self.shards[split]:05d}.array_record"


@dataclasses.dataclass(frozen=True)
class ShardFacts:
    """What a finished shard holds: `documents` read, with `text_bytes`, made `records` of
    `tokens`, of which `unknown` are the vocabulary's unknown; the file's `bytes` and `sha256`;
    `salt`, with which the checksums of its records begin."""

    records: int
    documents: int
    text_bytes: int
    tokens: int
    unknown: int
    bytes: int
    sha256: str
    salt: int


@dataclasses.dataclass(frozen=True)
class SetInfo:
    """A whole set: its plan, the facts of every shard by split, and what it was made of.

    Attributes:
      sources: as `sources.facts` and `sources.settings` have them; none of a set that was made
        before they were noted.
    """

    plan: SetPlan
    shards: Mapping[str, Sequence[ShardFacts]]
    sources: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    def records(self, split: str) -> int:
        """Records of a split."""
        return sum(facts.records for facts in self.shards[split])

    def text(self, with_sources: bool = True) -> str:
        """The content of set.json; without its sources it says no more than what the set gives."""
        content = {
            "format": _FORMAT,
            "plan": self.plan.as_written,
            "shards": {s: [dataclasses.asdict(f) for f in of] for s, of in self.shards.items()},
        }
        if self.sources and with_sources:
            content["sources"] = self.sources
        return storage.with_checksum(content)


def folder_of(directory: str, name: str) -> Path:
    """Where a task or mixture lies below PREPARED_DIR, on this machine or at a URL.

    Raises:
      UserError: the name cannot be that of a folder, or the directory no place.
    """
    if not NAME.fullmatch(name):
        raise UserError(
            f"MIXTURE_OR_TASK_NAME={name!r} cannot name a folder: use letters, digits and any of "
            "'_.:-'."
        )
    return storage.as_path(directory, "PREPARED_DIR") / name


def read_info(folder: Path, task: str) -> SetInfo:
    """Reads set.json.

    Raises:
      UserError: it is not there, damaged, or of another task.
    """
    path = folder / FILE
    content = storage.read_if_there(path, "PREPARED_DIR", MAX_BYTES)
    if content is None:
        storage.check_bucket(folder.parent, "PREPARED_DIR")
        if storage.is_file(folder.parent / FILE, "PREPARED_DIR"):
            raise UserError(
                f"PREPARED_DIR={str(folder.parent)!r} is the folder of one task's set: name the "
                f"one that it lies in, {str(folder.parent.parent)!r}."
            )
        unfinished = storage.is_folder(folder / PREPARING, "PREPARED_DIR")
        state = "holds an unfinished set" if unfinished else "holds no prepared set"
        advice = "again to go on" if unfinished else "first"
        raise UserError(
            f"PREPARED_DIR={str(folder.parent)!r} {state} of {task!r}: run `switchx data prepare` "
            f"{advice}."
        )
    info = parse_info(content, str(path))
    if info.plan.task != task:
        raise UserError(f"{str(path)!r} is of the task {info.plan.task!r}, not {task!r}.")
    return info


def parse_info(content: bytes, path: str) -> SetInfo:
    """The set that the bytes of a set.json describe.

    Raises:
      UserError: they are damaged.
    """
    try:
        read = storage.checked(content, _FORMAT)
        info = SetInfo(
            SetPlan(**read["plan"]),
            {split: [ShardFacts(**f) for f in of] for split, of in read["shards"].items()},
            {split: dict(of) for split, of in read.get("sources", {}).items()},
        )
        check_plan(info.plan)
        if {s: len(of) for s, of in info.shards.items()} != dict(info.plan.shards):
            raise ValueError("its shards are not those of its plan")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path!r} is damaged ({str(error)[:100] or type(error).__name__}): prepare the set "
            "again or copy it again."
        ) from error
    return info


def check_plan(plan: SetPlan) -> None:
    """Raises ValueError or TypeError where a plan from a file makes no sense."""
    if plan.dtype not in TOKEN_TYPES or not 0 < plan.vocab_size < 2**31:
        raise ValueError("vocab_size")
    if sorted(plan.feature_lengths) != sorted(FEATURES):
        raise ValueError("feature_lengths")
    if not all(2 <= length < _LONGEST for length in plan.feature_lengths.values()):
        raise ValueError("feature_lengths")
    if [type(ends) for ends in plan.add_eos] != [bool, bool]:
        raise ValueError("add_eos")
    mode = plan.mode or ()
    if not all(isinstance(token, int) and 0 < token < plan.vocab_size for token in mode):
        raise ValueError("mode")
    if plan.cut is not None:
        _check_corruption(plan, plan.cut)
    if plan.sentinels is not None:
        _check_sentinels(plan.sentinels, plan.vocab_size)
    if not all(re.fullmatch(r"\w+", split) for split in plan.shards):
        raise ValueError("shards")


def _check_sentinels(sentinels: Sequence[int], vocab_size: int) -> None:
    first, step = sentinels
    if not 0 < first < vocab_size or step not in (-1, 1):
        raise ValueError("sentinels")


def _check_corruption(plan: SetPlan, cut: int) -> None:
    """Every row up to a length must have room for its spans, and then fit a row of the batch."""
    if not (1 <= cut < _LONGEST and 0 < plan.density < 1 and plan.mean_span >= 1):
        raise ValueError("cut, density or mean_span")
    for length in range(2, cut + 1):
        noise, spans = plan.corruption.counts(length)
        inputs, targets = len(plan.mode or ()) + length - noise + spans, noise + spans
        if (
            spans > min(noise, length - noise)
            or inputs + plan.add_eos[0] > plan.feature_lengths["inputs"]
            or targets + plan.add_eos[1] > plan.feature_lengths["targets"]
        ):
            raise ValueError("cut")


def other_source(
    there: Mapping[str, Mapping[str, Any]], here: Mapping[str, Mapping[str, Any]]
) -> str | None:
    """What differs between the sources of a set and those that are there now; None if nothing."""
    for name, now in here.get(SETTINGS, {}).items():
        then = there.get(SETTINGS, {}).get(name, _BEFORE.get(name, now))
        if then != now:
            return f"{name}={then!r}, and not {now!r}"
    for split in sorted(here.keys() & there.keys() - {SETTINGS}):
        then, now = there[split], here[split]
        for name in sorted(then.keys() | now.keys()):
            if name not in now:
                return f"{name!r}, which is no source of {split!r} now"
            if name not in then:
                return f"other files than {name!r}"
            if not _same_source(then[name], now[name]):
                before, after = map(_shown_source, (then[name], now[name]))
                return f"another {name!r} ({before} then, {after} now)"
    return None


def _same_source(then: Any, now: Any) -> bool:
    """A set may be older than the noting of the hashes of remote files."""
    if isinstance(then, list) and isinstance(now, list) and None in (then[1], now[1]):
        return bool(then[0] == now[0])
    return bool(then == now)


def _shown_source(state: Any) -> str:
    if not isinstance(state, list):
        return f"{state} examples"
    size, mark = state
    if mark is None:
        return f"{size} bytes"
    if isinstance(mark, str):
        return f"{size:,} bytes of hash {mark}"
    changed = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(mark / 1e9))
    return f"{size:,} bytes of {changed}"


def check_same(plan: SetPlan, config: DataConfig, vocabulary: str | None) -> None:
    """Raises UserError where a set was cut with other settings than a run asks for.

    Args:
      vocabulary: digest of the run's vocabulary; None where it takes the set's.
    """
    wanted: dict[str, tuple[Any, Any]] = {
        "TASK_FEATURE_LENGTHS": (dict(config.feature_lengths), dict(plan.feature_lengths)),
        "PACK": (config.pack, plan.pack),
    }
    if plan.task in names.DENOISER_OF:
        wanted["MODE_TOKENS"] = (config.mode_tokens, plan.mode is not None)
    if vocabulary not in (None, plan.vocabulary):
        raise UserError(
            f"VOCABULARY={config.vocabulary!r} is not what the set of {plan.task!r} in "
            f"PREPARED_DIR {config.prepared_dir!r} was prepared with: leave it at 'default' to "
            "take the set's, or prepare another set."
        )
    for setting, (here, there) in wanted.items():
        if here != there:
            raise UserError(
                f"{setting}={here!r} but the set of {plan.task!r} in PREPARED_DIR "
                f"{config.prepared_dir!r} was prepared with {there!r}: give that, or prepare "
                "another set."
            )
