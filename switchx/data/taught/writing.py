"""Writes a set of logits, shard by shard: what is finished stays, whatever ends the writing."""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from switchx import storage
from switchx.data.prepared.set_plan import PREPARING
from switchx.data.prepared.shard_writer import WRITER_OPTIONS
from switchx.data.taught.logit_set import (
    FILE,
    LogitFacts,
    LogitPlan,
    LogitSet,
    check_same,
    file_of,
    parse_plan,
    parse_set,
)
from switchx.data.taught.records import Taught, encode
from switchx.errors import RunError, UserError

_BEGUN = "plan.json"
_SPARE_BYTES = 1 << 28  # of a disk, beside what is written


class Writing:
    """The writing of a set of logits, or what is left to do of it.

    Attributes:
      counts: the examples of each shard.
      todo: the shards that are not whole yet.
      is_whole: whether nothing is to be done.
    """

    def __init__(self, folder: Path, plan: LogitPlan, examples: int) -> None:
        """Of so many examples, or as many as a whole set has.

        Raises:
          UserError: what is there was written with other settings, or is damaged.
        """
        self._folder = folder
        whole, begun = self._whole(), self._begun()
        for there in (begun, whole.plan if whole else None):
            if there is not None:
                check_same(there, plan.settings, folder.name)
                plan = there  # the same, but where it was begun may have had another path
        self._plan = plan
        self.counts = plan.shards(max(examples, whole.examples if whole else 0))
        self._done = self._there(whole, begun)
        self.todo = [n for n in range(len(self.counts)) if n not in self._done]
        self.is_whole = whole is not None and not self.todo

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Refuses a second writing of the same set."""
        remote = storage.is_remote(self._folder)
        path = self._folder / ".lock" if remote else self._note(".lock")
        what = f"TEACHER_LOGITS={self._folder.name!r}"
        return storage.exclusive_lock(path, what, "switchx data teach")

    def begin(self) -> None:
        """From here on the set is unfinished; what of it was whole is noted."""
        storage.remove_unfinished(self._folder)
        storage.write_whole(self._note(_BEGUN), json.dumps(dataclasses.asdict(self._plan)))
        for shard, facts in self._done.items():
            storage.write_whole(self._facts(shard), json.dumps(dataclasses.asdict(facts)))
        storage.remove(self._folder / FILE)

    def write(self, shard: int, examples: Iterable[Taught]) -> None:
        """Writes a shard, of which that many examples come, and after it its facts.

        Raises:
          RunError: it cannot be written.
        """
        count = self.counts[shard]
        try:
            with storage.whole_file(self._folder / file_of(shard)) as path:
                facts = self._write(path, itertools.islice(examples, count))
            storage.write_whole(self._facts(shard), json.dumps(dataclasses.asdict(facts)))
        except RunError as error:
            raise RunError(
                f"{str(error).removesuffix('.')}; what was finished stays: run the same command "
                "to go on."
            ) from error
        self._done[shard] = facts

    @property
    def found(self) -> LogitSet:
        """What is there of it."""
        return LogitSet(self._plan, [self._done[shard] for shard in sorted(self._done)])

    def finish(self) -> None:
        """Writes logits.json."""
        storage.write_whole(self._folder / FILE, self.found.text())
        storage.remove(self._folder / PREPARING)

    def check_room(self, need: int, said: str) -> None:
        """Raises UserError where the disk has less room than is needed; a bucket has any.

        Args:
          said: which settings that follows from.
        """
        if storage.is_remote(self._folder):
            return
        there = next(folder for folder in self._folder.parents if folder.is_dir())
        free = shutil.disk_usage(there).free
        if need + _SPARE_BYTES > free:
            raise UserError(
                f"{str(there)!r} has {free / 1e9:,.1f} GB free, and the logits take about "
                f"{need / 1e9:,.1f} GB ({said}): make room, or lower TEACHER_TOP_K or TRAIN_STEPS."
            )

    def _write(self, path: Path, examples: Iterable[Taught]) -> LogitFacts:
        from array_record.python.array_record_module import ArrayRecordWriter

        plan, records, tokens = self._plan, 0, 0
        writer: Any = ArrayRecordWriter(str(path), WRITER_OPTIONS)
        try:
            for found in examples:
                writer.write(encode(found, plan.top_k, plan.vocab_size, plan.salt))
                records, tokens = records + 1, tokens + len(found.ids)
            writer.close()
        except RuntimeError as error:  # what its C++ side makes of a full disk
            raise OSError(0, str(error).partition(";")[0]) from error
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return LogitFacts(records, tokens, path.stat().st_size, digest)

    def _whole(self) -> LogitSet | None:
        content = storage.read_if_there(self._folder / FILE, "PREPARED_DIR")
        return None if content is None else parse_set(content, str(self._folder / FILE))

    def _begun(self) -> LogitPlan | None:
        content = storage.read_if_there(self._note(_BEGUN), "PREPARED_DIR")
        try:
            return None if content is None else parse_plan(content)
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"{str(self._note(_BEGUN))!r} is damaged: remove {str(self._folder)!r} and run "
                "`switchx data teach` again."
            ) from error

    def _there(self, whole: LogitSet | None, begun: LogitPlan | None) -> dict[int, LogitFacts]:
        """The facts of each shard that is whole."""
        facts = dict(enumerate(whole.shards)) if whole else {}
        if begun is not None:
            facts |= {n: noted for n in range(len(self.counts)) if (noted := self._noted(n))}
        sizes = storage.sizes_in(self._folder, "PREPARED_DIR") if facts else {}
        return {
            shard: noted
            for shard, noted in facts.items()
            if shard < len(self.counts)
            and noted.records == self.counts[shard]
            and sizes.get(file_of(shard)) == noted.bytes
        }

    def _noted(self, shard: int) -> LogitFacts | None:
        content = storage.read_if_there(self._facts(shard), "PREPARED_DIR")
        with contextlib.suppress(ValueError, TypeError):  # damaged: the shard is written anew
            return None if content is None else LogitFacts(**json.loads(content))
        return None

    def _note(self, name: str) -> Path:
        return self._folder / PREPARING / name

    def _facts(self, shard: int) -> Path:
        return self._note(f"{file_of(shard)}.json")
