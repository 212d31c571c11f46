"""`switchx data teach`: a teacher's logits, written beside a prepared set for students to read."""

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from switchx import data, hosts, terminal
from switchx.api.teaching import check_top_k, read_by, taught
from switchx.data.taught.logit_set import LogitPlan, LogitSet, folder_of_set
from switchx.data.taught.records import Taught, bytes_per_token, taken_apart
from switchx.data.taught.writing import Writing
from switchx.errors import UserError
from switchx.settings import Settings
from switchx.training.config import RunConfig

SHARD_BYTES = 256e6
SAID_SECONDS = 5.0


def teach(settings: Settings) -> LogitSet:
    """Writes the logits of the examples that a run of these settings takes, or what lacks of them.

    All hosts of a job call this; the first one writes, and only there the set is known.

    Raises:
      UserError: the settings do not fit, or logits of others are in the way.
      RunError: they cannot be written.
    """
    if settings.objective.logits is None:
        raise UserError(
            "TEACHER_LOGITS is not set: give the logits a name, as in "
            "--gin.TEACHER_LOGITS=base_8; students of theirs give the same."
        )
    folder = folder_of_set(settings.data, settings.objective.logits)
    data.preflight(settings.data, ["train"])
    run = _online(settings)
    plan = _plan(settings, run)
    examples = run.trainer.train_steps * run.batch.batch_size
    writing = Writing(folder, plan, examples)
    if hosts.all_of(writing.is_whole):
        return writing.found
    _check_room(settings, writing)
    with contextlib.ExitStack() as lock:
        if hosts.is_first():
            lock.enter_context(writing.locked())
            writing = Writing(folder, plan, examples)
            writing.begin()
        writing.todo = json.loads(hosts.announced(json.dumps(writing.todo)))
        try:
            _write(settings, run, writing)
        except KeyboardInterrupt:
            whole = f"{len(writing.counts) - len(writing.todo)} of {len(writing.counts)}"
            raise KeyboardInterrupt(
                f"{whole} shards are whole: run the same command to go on"
            ) from None
        if hosts.is_first():
            writing.finish()
        hosts.barrier("taught")
        return writing.found


def _online(settings: Settings) -> RunConfig:
    """A run whose teacher computes, whatever its student makes of it."""
    objective = dataclasses.replace(settings.objective, name="distill", share=1.0, logits=None)
    return taught(dataclasses.replace(settings, objective=objective))


def _plan(settings: Settings, run: RunConfig) -> LogitPlan:
    teacher, top_k, batch = run.teacher, settings.objective.top_k, run.batch
    assert teacher is not None
    check_top_k(top_k, run.model.vocab_size)
    made_by = {
        "BATCH_SIZE": batch.batch_size,
        "TEACHER": [f"{teacher.config.teacher} (step {teacher.step})", teacher.seal],
        "TEACHER_DTYPE": teacher.config.dtype,
    }
    per_token = bytes_per_token(top_k, run.model.vocab_size)
    batch_bytes = batch.batch_size * (batch.target_length or batch.input_length) * per_token
    return LogitPlan(
        settings=json.loads(json.dumps(read_by(settings) | made_by)),
        teacher=teacher.record,
        vocabulary=teacher.vocabulary,
        top_k=top_k,
        vocab_size=run.model.vocab_size,
        shard_examples=max(1, int(SHARD_BYTES / batch_bytes)) * batch.batch_size,
    )


def _check_room(settings: Settings, writing: Writing) -> None:
    """Says how much is to be written, by what the first batch holds; there must be room for it."""
    stream = data.train_stream(settings.data)
    batch = next(stream)
    stream.close()
    top_k, vocab_size = settings.objective.top_k, settings.run.model.vocab_size
    tokens = float((data.targets_of(batch)[1] > 0).mean(axis=0).sum())
    per_token = bytes_per_token(top_k, vocab_size)
    examples = sum(writing.counts[shard] for shard in writing.todo)
    need = int(examples * tokens * per_token)
    said = f"{examples:,} examples of {tokens:,.1f} targets, {per_token:,} bytes each"
    writing.check_room(need, said)
    if hosts.is_first():
        shards = f"{len(writing.todo)} of {len(writing.counts)} shards to write"
        print(f"{shards}: {said}, about {need / 1e9:,.3f} GB", file=sys.stderr)


def _write(settings: Settings, run: RunConfig, writing: Writing) -> None:
    from switchx.sharding import make_mesh
    from switchx.training.checks import check_run
    from switchx.training.host_rows import HostShards
    from switchx.training.state import Setup
    from switchx.training.teaching import compile_teacher

    mesh = make_mesh(run.mesh)
    check_run(run, mesh)
    shards = HostShards.of(mesh, run.batch)
    call = compile_teacher(Setup.of(run, mesh), settings.objective.top_k)
    hosts.compiled_everywhere("teach")
    stream, at = data.train_stream(settings.data, shards.read), 0
    progress = _Progress(writing)
    with contextlib.closing(stream), progress:
        for shard in list(writing.todo):
            first = sum(writing.counts[:shard])
            if first != at:
                stream.skip(first - at)
            at = first + writing.counts[shard]
            batches = (call(next(stream)) for _ in range(first, at, run.batch.batch_size))
            examples = progress.counted(batches)
            if hosts.is_first():
                writing.write(shard, examples)
            else:
                for _ in examples:
                    pass
            writing.todo.remove(shard)


class _Progress:
    """Within, shows how far the writing is."""

    def __init__(self, writing: Writing) -> None:
        self._writing, self._tokens = writing, 0
        self._before = self._done = sum(writing.counts) - sum(
            writing.counts[shard] for shard in writing.todo
        )
        self._shown = terminal.Progress(
            sum(writing.counts), "examples", self._done, shown=hosts.is_first()
        )

    def __enter__(self) -> None:
        self._began = self._said = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._say()
        self._shown.close()

    def counted(self, batches: Iterator[Any]) -> Iterator[Taught]:
        """The examples of these batches."""
        for batch in batches:
            found = taken_apart(batch)  # counted before: nobody asks behind a shard's last one
            self._done += len(found)
            self._tokens += sum(len(one.ids) for one in found)
            if time.monotonic() - self._said > SAID_SECONDS:
                self._say()
            yield from found

    def _say(self) -> None:
        self._said = time.monotonic()
        seconds = max(self._said - self._began, 1e-3)
        rate = (self._done - self._before) / seconds
        news = [f"{rate:,.1f} examples/s", f"{self._tokens / seconds:,.0f} targets/s"]
        self._shown.update(self._done, news, rate)
