"""A whole run: prepare, resume, train, evaluate, save, and leave pictures."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jax.sharding import Mesh

from switchx import hosts
from switchx.sharding import make_mesh, table
from switchx.terminal import Progress
from switchx.training import run_directory
from switchx.training.batches import Evaluation
from switchx.training.checkpoints import Checkpoints, Restored
from switchx.training.checkpoints.identity import identity
from switchx.training.checkpoints.refusals import check_resume
from switchx.training.checks import check_run
from switchx.training.config import RunConfig
from switchx.training.host_rows import HostShards
from switchx.training.loop import Loop, Stream, TrainResult
from switchx.training.metrics import MetricWriter, layer_names
from switchx.training.state import Setup
from switchx.training.step import compile_train_step


def train(
    run: RunConfig,
    model_dir: str,
    make_stream: Callable[[Sequence[int]], Stream],
    make_evaluation: Callable[[Setup], Evaluation],
    resolved_config: str,
    vocabulary_fingerprint: str | None = None,
    token: str = "",
) -> TrainResult:
    """Trains to `train_steps`, from the newest checkpoint in `model_dir` if there is one.

    Every host of a job calls this alike. The data pipeline opens in a thread of its own while
    the step compiles.

    Args:
      make_stream: makes the stream of these shards of the data, those of this host.
      token: a word that the hosts have in common (`hosts.joined`).

    Raises:
      UserError: before anything is compiled or written over, if the run's numbers do not fit, or
        another process trains in `model_dir`.
      RunError: if the loss is bad and may not be skipped, or a file cannot be written.
    """
    mesh = make_mesh(run.mesh)
    check_run(run, mesh)
    shards = HostShards.of(mesh, run.batch)
    directory = run_directory.prepare(model_dir, token)
    with run_directory.locked(directory):
        return _train(
            run,
            mesh,
            shards,
            directory,
            make_stream,
            make_evaluation,
            resolved_config,
            vocabulary_fingerprint,
        )


def _train(
    run: RunConfig,
    mesh: Mesh,
    shards: HostShards,
    directory: Path,
    make_stream: Callable[[Sequence[int]], Stream],
    make_evaluation: Callable[[Setup], Evaluation],
    resolved_config: str,
    vocabulary_fingerprint: str | None,
) -> TrainResult:
    check_resume(run, directory, vocabulary_fingerprint)
    setup = Setup.of(run, mesh)
    own = identity(run.model, run.optimizer.name, vocabulary_fingerprint)
    skips = run.trainer.on_bad_loss == "skip"
    checkpoints = Checkpoints(
        directory,
        keep=run.trainer.keep_checkpoints,
        base_period=run.trainer.checkpoint_period if skips else None,
    )
    with ThreadPoolExecutor(max_workers=1) as pool:
        opening = pool.submit(make_stream, shards.read)
        began = time.monotonic()
        step = compile_train_step(setup)
        hosts.compiled_everywhere("train")
        restored = checkpoints.restore_newest(setup, shards)
        started = restored or Restored(setup.init(), {})
        stream = opening.result()
    data_start = stream.state() if skips else {}  # where a rollback to the start goes on
    if started.positions:
        stream.restore(started.positions)
    if hosts.is_first():
        run_directory.write_config(directory, resolved_config)
        run_directory.write_model_info(directory, setup.model, mesh, run.mesh.fully_sharded)

    first = int(started.state.step)
    progress = Progress(run.trainer.train_steps, "step", first, shown=hosts.is_first())
    for line in table(mesh, run.mesh.fully_sharded):
        progress.message(line)
    progress.message(
        f"{setup.model.num_params:,} parameters; "
        f"ready in {time.monotonic() - began:.1f} s; "
        + (f"resuming from step {first}" if restored else "starting afresh")
        + f" in {directory}"
    )
    writer = MetricWriter(directory, first, layer_names(run.model))
    evaluator = make_evaluation(setup)
    loop = Loop(setup, shards, checkpoints, own, writer, progress, evaluator)
    try:
        return loop.run(step, stream, started, data_start)
    finally:
        checkpoints.close()
        writer.close()
        progress.close()
