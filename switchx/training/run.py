"""A whole run: its directory, where it goes on from, training, and what it leaves."""

import contextlib
import functools
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from switchx import hosts
from switchx.sharding import make_mesh, mesh_table
from switchx.training import run_directory
from switchx.training.checkpoints.checkpoints import Checkpoints, Restored
from switchx.training.checkpoints.identity import saved_steps
from switchx.training.checkpoints.refusals import check_resume
from switchx.training.checks import check_run
from switchx.training.config import RunConfig
from switchx.training.feed import Feed
from switchx.training.freezing import num_trained, teacher_flops
from switchx.training.hangs import HangWatch
from switchx.training.host_rows import HostShards
from switchx.training.log import RunLog
from switchx.training.loop import Loop, TrainResult
from switchx.training.not_finite import Inquiry
from switchx.training.profile import Profiler, ProfileSteps
from switchx.training.room import check_room
from switchx.training.run_reader import metric_rows, read_start
from switchx.training.start import FRESH, Start, lines
from switchx.training.state import Setup
from switchx.training.step import compile_train_step
from switchx.writers import Writers


def train(
    run: RunConfig,
    model_dir: str | Path,
    feed: Feed,
    config: str = "",
    token: str = "",
    start: Start = FRESH,
    profile_steps: ProfileSteps | None = None,
    writers: Writers | None = None,
) -> TrainResult:
    """Trains to `train_steps`, from the newest checkpoint in `model_dir` if there is one.

    Every host of a job calls this alike. A run that is done already is left as it is: then the
    result is what it left.

    Args:
      feed: the data and what evaluates; nothing of it is opened before all else is known to fit.
      config: gin that gives this run again, for config.gin; "" where no gin says it.
      token: a word that the hosts have in common (`hosts.joined`).
      start: where the first state comes from.
      profile_steps: those of which a profile is written; it changes nothing else.
      writers: get the rows of metrics too; they are the caller's to close.

    Raises:
      UserError: before anything is compiled or written over, if the run's numbers do not fit,
        another process trains in `model_dir`, or what lies there is of another run.
      RunError: if the loss is bad and may not be skipped, or a file cannot be written.
    """
    mesh = make_mesh(run.mesh)
    check_run(run, mesh)
    setup = Setup.of(run, mesh)
    check_room(setup)
    shards = HostShards.of(mesh, run.batch)
    directory = run_directory.prepare(model_dir, token)
    with run_directory.locked(directory):
        vocabulary = feed.check()
        resets = check_resume(run, directory, vocabulary, feed.check_position)
        try:
            with contextlib.closing(
                Checkpoints(directory, setup, shards, start, vocabulary, resets)
            ) as checkpoints:
                profile = functools.partial(Profiler, profile_steps, directory, token)
                return _train(
                    setup, checkpoints, shards, directory, feed, config, start, profile, writers
                )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_what_is_left(directory)) from None


def _train(
    setup: Setup,
    checkpoints: Checkpoints,
    shards: HostShards,
    directory: Path,
    feed: Feed,
    config: str,
    start: Start,
    profile: Callable[..., Profiler],
    writers: Writers | None,
) -> TrainResult:
    """The data opens in a thread of its own while the step compiles.

    So does what makes a fresh state, where a process is alone: the compiler of one program keeps
    one core busy.
    """
    started = time.monotonic()
    fresh = start is FRESH and jax.process_count() == 1 and not saved_steps(directory)
    with ThreadPoolExecutor(max_workers=2) as pool:
        if fresh:
            making, opening = pool.submit(setup.compile_init), pool.submit(feed.stream, shards.read)
            compile_train_step(setup)
            making.result()
        began = checkpoints.newest_or_start()
        finished = _finished(directory, began.step, setup.run.trainer.train_steps)
        if finished is not None:
            return finished
        if not fresh:
            opening = pool.submit(feed.stream, shards.read)
        step = compile_train_step(setup)
        hosts.compiled_everywhere("train")
        stream = opening.result()
    if hosts.is_first():
        record = _with_teacher(setup.run, directory, began.record)
        run_directory.write_start(directory, setup, config, record, checkpoints.resets)
    log = RunLog(directory, setup, began.step, writers or Writers())
    try:
        _introduce(log, setup, began, directory, time.monotonic() - started)
        for line in () if began.record else checkpoints.resets.lines(began.step):
            log.say(line)
        profiler, hangs = profile(step.program, log.say), HangWatch(directory)
        evaluation = feed.evaluation(setup)
        inquiry = Inquiry(setup, directory)
        loop = Loop(setup, checkpoints, stream, evaluation, log, profiler, hangs, inquiry, began)
        return loop.run(step)
    finally:
        log.close()


def _finished(directory: Path, step: int, train_steps: int) -> TrainResult | None:
    """What a run that was done before left; None where something is to be done yet.

    That may be the last evaluation: a run that was stopped at its last step has none.
    """
    if step < train_steps:
        return None
    rows = [r for r in metric_rows(directory) if (r["step"], r["split"]) == (step, "validation")]
    if not hosts.all_of(bool(rows)):
        return None
    row = {name: value for name, value in rows[-1].items() if name not in ("step", "time")}
    validation = {name: value for name, value in row.items() if isinstance(value, float)}
    load = np.array(row["load"]) if "load" in row else None
    return TrainResult(step, None, validation, load, first_step=step)


def _with_teacher(run: RunConfig, directory: Path, record: Mapping[str, Any]) -> Mapping[str, Any]:
    """What start.json is to say of a run; {} where it says all of it.

    Also whom it learns from, so that a restart before the first save learns from the same, and
    what that costs, since a report reads nothing of the teacher.
    """
    if run.teacher is None:
        return record
    teacher = {**run.teacher.record, "forward_flops": teacher_flops(run)}
    said = record or read_start(directory)
    return {} if said.get("teacher") == teacher else {**said, "teacher": teacher}


def _introduce(log: RunLog, setup: Setup, began: Restored, directory: Path, seconds: float) -> None:
    for line in mesh_table(setup.mesh, setup.run.mesh.fully_sharded):
        log.say(line)
    if not began.record:
        how = f"resuming from step {began.step}"
    elif began.record["from"] == "fresh":
        how = "starting afresh"
    else:
        how = f"starting from {began.record['from']} at step {began.step}"
    if "checkpoint" in began.record:
        how += f" with the checkpoint {began.record['checkpoint']} of {began.record['path']}"
    teacher = setup.run.teacher
    if teacher is not None:
        config = teacher.config
        by = f", by its logits {config.logits!r}" if config.logits else ""
        where = f"step {teacher.step} of {config.teacher}{by}"
        log.say(f"learning from {where}, share {config.share}{_from_step(setup)}")
    trained = _trained(setup)
    log.say(
        f"{setup.model.num_params:,} parameters{trained}; ready in {seconds:.1f} s; {how} in "
        f"{directory}"
    )
    for line in lines(began.record):
        log.say(line)
    if began.record and (began.step or "checkpoint" in began.record):
        steps = setup.run.trainer.train_steps
        log.say(f"{steps - began.step:,} steps to train: from step {began.step:,} to {steps:,}")


def _from_step(setup: Setup) -> str:
    """From when on the teacher counts, where that is not at once."""
    teacher, last = setup.run.teacher, setup.run.trainer.train_steps
    start = teacher.config.start_step if teacher else 0
    if start >= last:
        return f", from step {start} on: not before this run ends at {last}"
    return f", from step {start} on" if start else ""


def _trained(setup: Setup) -> str:
    """What is said of frozen parameters; "" of none."""
    frozen, total = setup.run.optimizer.frozen, setup.model.num_params
    if not frozen:
        return ""
    count = num_trained(setup.model.shapes, frozen)
    return f", {count:,} of them trained ({count / total:.2%}), frozen: {', '.join(frozen)}"


def _what_is_left(directory: Path) -> str:
    steps, where = saved_steps(directory), f"MODEL_DIR={str(directory)!r}"
    if not steps:
        return f"no checkpoint was saved in {where}"
    return (
        f"the newest checkpoint in {where} is of step {steps[-1]}, and what came after it is lost"
    )
