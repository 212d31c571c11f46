"""Prepares a task or a mixture: each shard on an Apache Beam worker, then one file for all."""

import argparse
import contextlib
import dataclasses
import json
import logging
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NoReturn

import seqio

from switchx import storage
from switchx.data import checks
from switchx.data.config import DataConfig, check_values
from switchx.data.prepared import cutting, set_plan
from switchx.data.prepared.progress import Progress
from switchx.data.prepared.set_plan import PREPARING, SetInfo
from switchx.data.prepared.shard_writer import ShardJob, finished, notes_of, write_shard
from switchx.data.tasks import lookup, sources
from switchx.data.tasks.sentence_pieces import SentencePieces
from switchx.errors import RunError, UserError

_RUNNERS = ("FnApiRunner", "DirectRunner", "BundleBasedDirectRunner", "DataflowRunner")  # its own
LOCAL_RUNNER = ("--runner=FnApiRunner",)
_BEGUN = "plan.json"
_SETTINGS = {
    "pack": "PACK",
    "feature_lengths": "TASK_FEATURE_LENGTHS",
    "shards": "--shards or --splits",
}
_RAISED = re.compile(
    r"(UserError|RunError): (.*?)(?: \[while running| \[\'while running|\n|$)", re.S
)


def prepare(
    config: DataConfig, splits: Sequence[str], shards: int | None, beam_flags: Sequence[str]
) -> list[SetInfo]:
    """Prepares what is not prepared yet of a config's task or mixture, below PREPARED_DIR.

    Args:
      shards: of each split; None takes as many as the source has files.
      beam_flags: of Apache Beam; none is this machine.

    Returns:
      the sets, all of them whole.

    Raises:
      UserError: something is missing, or a set of other settings or sources is in the way.
      RunError: it could not be finished; what is done stays.
    """
    check_values(config)
    if config.prepared_dir is None:
        raise UserError("PREPARED_DIR is not set: give the folder to prepare into.")
    storage.writable_path(config.prepared_dir, "PREPARED_DIR")
    if not splits:
        raise UserError("--splits='' names no split: give some, as train,validation.")
    if shards is not None and shards < 1:
        raise UserError(f"--shards={shards} is no whole number of at least 1: give one.")
    checks.check_settings(dataclasses.replace(config, prepared_dir=None), splits)
    provider = checks.check_task(dataclasses.replace(config, mixture_starts=None), splits)
    tasks = sorted(seqio.get_subtasks(provider), key=lambda task: task.name)
    preparations = [
        _Preparation(task, config, own, shards)
        for task in tasks
        if (own := [split for split in splits if split in task.splits])  # all but in a mixture
    ]
    todo = [preparation for preparation in preparations if preparation.info is None]
    _check_beam_flags(beam_flags)
    if todo:
        storage.make_directory(config.prepared_dir, "PREPARED_DIR")
    with contextlib.ExitStack() as locks:
        for preparation in todo:
            locks.enter_context(preparation.locked())
            preparation.begin()
        _run(todo, beam_flags)
        for preparation in todo:
            preparation.finish()
    found = [preparation.info for preparation in preparations if preparation.info is not None]
    parts = [provider]
    if config.mixture_tasks is not None:  # of it gin has the rates, of those in it nobody
        parts = [lookup.find_provider(config.of_task(name)) for name in config.names]
    for part in parts:
        if isinstance(part, seqio.Mixture):
            _describe(part, config.prepared_dir, {info.plan.task for info in found})
    return found


def _describe(mixture: seqio.Mixture, directory: str, prepared: Collection[str]) -> None:
    """Writes how often the tasks of a registered mixture come, of those that have sets."""
    tasks = sorted(mixture.tasks, key=lambda task: task.name)
    rates = {t.name: float(mixture.get_rate(t)) for t in tasks if t.name in prepared}
    folder = set_plan.folder_of(directory, mixture.name)
    text = json.dumps({"rates": rates}, indent=1) + "\n"
    storage.write_whole(folder / set_plan.MIXTURE_FILE, text)


class _Preparation:
    """The preparation of one task's set: what is asked for, and what is there of it.

    Attributes:
      info: the set, once it is whole.
    """

    def __init__(
        self, task: Any, config: DataConfig, splits: Sequence[str], shards: int | None
    ) -> None:
        self._task, self._config = task, config
        self._url = str(set_plan.folder_of(str(config.prepared_dir), task.name))
        counts = {split: shards or len(task.source.list_shards(split)) for split in splits}
        self._vocabulary = lookup.open_vocabulary(config.of_task(task.name), task)
        self.plan = cutting.plan_of(task, config, self._vocabulary, counts)
        settings = sources.settings(task, config)
        self._sources = {**sources.facts(task, splits), set_plan.SETTINGS: settings}
        self.info = self._there()

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Refuses a second preparation of the same set."""
        what = f"PREPARED_DIR={self._config.prepared_dir!r}"
        # A lease is kept up to its end, which takes it away; a file goes with the other notes.
        remote = storage.is_remote(self._url)
        path = f"{self._url}/.lock" if remote else notes_of(self._url, ".lock")
        return storage.exclusive_lock(path, what, "switchx data prepare")

    @property
    def jobs(self) -> list[ShardJob]:
        """All shards."""
        return [
            ShardJob(self._config, self.plan, self._url, split, shard)
            for split, count in self.plan.shards.items()
            for shard in range(count)
        ]

    def documents(self) -> int | None:
        """How many the source has in all, where it knows."""
        counts = [self._task.num_input_examples(split) for split in self.plan.shards]
        return None if None in counts else sum(counts)

    def begin(self) -> None:
        """Notes what is being made of what.

        Raises:
          UserError: what was begun here is of another plan or other sources.
        """
        begun = storage.read_if_there(notes_of(self._url, _BEGUN), "PREPARED_DIR")
        if begun is not None:
            there = _parsed(begun)
            self._check_same(there.get("plan", {}), there.get("sources", {}))
        storage.remove_unfinished(self._url)
        text = json.dumps({"plan": self.plan.as_written, "sources": self._sources})
        storage.write_whole(notes_of(self._url, _BEGUN), text)

    def finish(self) -> None:
        """Writes set.json, after the vocabulary where that is a file.

        Raises:
          RunError: a shard is not whole.
        """
        shards: dict[str, list[Any]] = {split: [] for split in self.plan.shards}
        for job in self.jobs:
            facts = finished(job)
            if facts is None:
                raise RunError(f"{job.file!r} was not finished: run the same command to go on.")
            shards[job.split].append(facts)
        for split, of in shards.items():
            if not sum(facts.records for facts in of):
                raise UserError(
                    f"MIXTURE_OR_TASK_NAME={self.plan.task!r} gives no example for the split "
                    f"{split!r}: its files are empty or hold too little text."
                )
        if isinstance(self._vocabulary, SentencePieces):
            path = f"{self._url}/{set_plan.VOCABULARY_FILE}"
            storage.write_whole(path, self._vocabulary.file)
        self.info = SetInfo(self.plan, shards, self._sources)
        storage.write_whole(f"{self._url}/{set_plan.FILE}", self.info.text())
        storage.remove(f"{self._url}/{PREPARING}")

    def _there(self) -> SetInfo | None:
        """The set where it is whole already.

        Raises:
          UserError: it is of another plan or other sources.
        """
        content = storage.read_if_there(f"{self._url}/{set_plan.FILE}", "PREPARED_DIR")
        if content is None:
            return None
        info = set_plan.parse_info(content, f"{self._url}/{set_plan.FILE}")
        self._check_same(info.plan.as_written, info.sources)
        return info

    def _check_same(self, plan: dict[str, Any], made_of: Any) -> None:
        """Raises UserError where what is there is of another plan or other sources."""
        wanted = json.loads(json.dumps(self.plan.as_written))
        there = json.loads(json.dumps(plan))
        if there.get("vocabulary") != wanted["vocabulary"]:
            raise UserError(
                f"VOCABULARY={self._config.vocabulary!r} is not what {self._url!r} was prepared "
                "with: give that, or another PREPARED_DIR."
            )
        modes, before = ("mode" in settings for settings in (wanted, there))
        if modes != before:
            raise UserError(
                f"MODE_TOKENS={modes} but {self._url!r} was prepared with {before}: give that, or "
                "another PREPARED_DIR."
            )
        for name in wanted:
            if there.get(name) != wanted[name]:
                raise UserError(
                    f"{_SETTINGS.get(name, name)}={wanted[name]!r} but {self._url!r} was prepared "
                    f"with {there.get(name)!r}: give that, or another PREPARED_DIR."
                )
        other = set_plan.other_source(made_of, self._sources)
        if other is not None:
            raise UserError(
                f"PREPARED_DIR={self._config.prepared_dir!r} holds {self.plan.task!r} made of "
                f"{other}: give another PREPARED_DIR, or remove {self._url!r} to make it anew."
            )


class _Flags(argparse.ArgumentParser):
    """Beam's own parser ends the process of a wrong value."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"Apache Beam's flags behind --: {message}.")


def _check_beam_flags(beam_flags: Sequence[str]) -> None:
    """Raises UserError for flags that Beam refuses, or would pass over.

    Runners that are not its own may know more flags than it does.
    """
    if not beam_flags:
        return
    with _quietly():
        from apache_beam.options.pipeline_options import PipelineOptions

    parser = _Flags(add_help=False, allow_abbrev=False, conflict_handler="resolve")
    for options in PipelineOptions.__subclasses__():
        options._add_argparse_args(parser)  # type: ignore[arg-type]
    given, unknown = parser.parse_known_args(list(beam_flags))
    if unknown and given.runner in (None, *_RUNNERS):
        raise UserError(
            f"{unknown[0]!r} behind -- is no flag of Apache Beam: leave it out, or name a runner "
            "that knows it (--runner)."
        )


def _run(preparations: Sequence[_Preparation], beam_flags: Sequence[str]) -> None:
    jobs = [job for preparation in preparations for job in preparation.jobs]
    if not jobs:
        return
    counts = [preparation.documents() for preparation in preparations]
    total = None if None in counts else sum(filter(None, counts))
    with Progress(jobs, total):
        try:
            _run_beam(jobs, beam_flags)
        except Exception as error:  # a runner adds to what its workers raise, or wraps it
            raise _as_raised(error) from error


def _run_beam(jobs: Sequence[ShardJob], beam_flags: Sequence[str]) -> None:
    if not beam_flags:  # what goes wrong here is raised, and said once
        logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    with _quietly():
        import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    options = PipelineOptions(list(beam_flags or LOCAL_RUNNER))
    with beam.Pipeline(options=options) as beam_pipeline:
        _ = (
            beam_pipeline
            | "Shards" >> beam.Create(list(jobs))
            | "Spread" >> beam.Reshuffle()
            | "Write" >> beam.Map(_write_one)
        )


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Within, the root logger is off: importing Beam warns of packages that only GCP needs."""
    before = logging.root.level
    logging.root.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logging.root.setLevel(before)


def _write_one(job: ShardJob) -> None:
    """On a worker: TensorFlow is there from here on."""
    from switchx.data.tensorflow_loader import load_tensorflow

    load_tensorflow()
    write_shard(job)


def _as_raised(error: Exception) -> UserError | RunError:
    """What one of our workers raised, out of what its runner made of it."""
    found = _RAISED.search(f"{type(error).__name__}: {error}")
    if found is None:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return RunError(
            f"Apache Beam stopped ({lines[-1][:300]}); what was finished stays: run the same "
            "command to go on."
        )
    kind = UserError if found[1] == "UserError" else RunError
    return kind(found[2].strip())


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        read = json.loads(content)
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}
