"""A whole run: prepare, resume, train, evaluate, save, and leave pictures."""

import dataclasses
import math
import signal
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import jax

from switchx.errors import RunError
from switchx.model import train_flops
from switchx.sharding import describe, make_mesh
from switchx.training import pictures, run_directory
from switchx.training.checkpoints import Checkpoints, Restored, identity
from switchx.training.checks import check_run
from switchx.training.config import RunConfig
from switchx.training.evaluation import Evaluator, HostBatch, put_batch
from switchx.training.metrics import MetricWriter, Rates, layer_names
from switchx.training.peak import measured_matmul_rate, peak_flops
from switchx.training.progress import Progress
from switchx.training.state import Setup
from switchx.training.step import compile_train_step, layer_arrays, scalars


class Stream(Protocol):
    """An endless stream of batches that knows its position."""

    def __next__(self) -> HostBatch: ...

    def state(self) -> bytes: ...

    def restore(self, state: bytes) -> None: ...

    def report(self) -> dict[str, int]: ...


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    Attributes:
      step: steps done.
      stopped_by: the signal that ended it early, or None.
      validation: scalars of the last evaluation.
      load: last validation load per expert, [layers, E]; None for a dense model.
      pictures: paths.
    """

    step: int
    stopped_by: signal.Signals | None
    validation: dict[str, float]
    load: Any
    pictures: list[Path]


def train(
    run: RunConfig,
    model_dir: str,
    make_stream: Callable[[], Stream],
    make_eval_batches: Callable[[], Iterable[HostBatch]],
    resolved_config: str,
    vocabulary_fingerprint: str | None = None,
) -> TrainResult:
    """Trains to `train_steps`, from the newest checkpoint in `model_dir` if there is one.

    The data pipeline opens in a thread of its own while the step compiles.

    Raises:
      UserError: before anything is compiled or written over, if the run's numbers do not fit.
      RunError: if the loss stops being finite or a checkpoint cannot be saved.
    """
    mesh = make_mesh(run.mesh)
    check_run(run, mesh)
    directory = run_directory.prepare(model_dir)
    setup = Setup.of(run, mesh)
    own = identity(run.model, run.optimizer.name, vocabulary_fingerprint)
    checkpoints = Checkpoints(directory, keep=run.trainer.keep_checkpoints)
    checkpoints.check(own)
    with ThreadPoolExecutor(max_workers=1) as pool:
        opening = pool.submit(make_stream)
        began = time.monotonic()
        step = compile_train_step(setup)
        restored = checkpoints.restore_newest(setup)
        started = restored or Restored(setup.init(), None)
        stream = opening.result()
    if started.position is not None:
        stream.restore(started.position)
    run_directory.write_config(directory, resolved_config)
    run_directory.write_model_info(directory, setup.model, mesh)

    first = int(started.state.step)
    progress = Progress(run.trainer.train_steps, first)
    progress.message(
        f"{setup.model.num_params:,} parameters; {describe(mesh)}; "
        f"ready in {time.monotonic() - began:.1f} s; "
        + (f"resuming from step {first}" if restored else "starting afresh")
        + f" in {directory}"
    )
    writer = MetricWriter(directory, first, layer_names(run.model))
    loop = _Loop(setup, checkpoints, own, writer, progress, Evaluator(setup, make_eval_batches))
    try:
        return loop.run(step, stream, started, directory)
    finally:
        checkpoints.close()
        writer.close()
        progress.close()


class _Loop:
    """The steps of one run, and what happens between them."""

    def __init__(
        self,
        setup: Setup,
        checkpoints: Checkpoints,
        own_identity: dict[str, Any],
        writer: MetricWriter,
        progress: Progress,
        evaluator: Evaluator,
    ):
        self.setup, self.config = setup, setup.run.trainer
        self.checkpoints, self.identity = checkpoints, own_identity
        self.writer, self.progress, self.evaluator = writer, progress, evaluator
        self.rates = _rates(setup)
        self.saved_step: int | None = None
        self.validation: dict[str, float] = {}
        self.load: Any = None

    def run(
        self, train_step: Callable, stream: Stream, started: Restored, directory: Path
    ) -> TrainResult:
        state, step = started.state, int(started.state.step)
        self.saved_step = step if self.checkpoints.steps() else None
        with _Signals() as signals:
            self.logged_step, self.logged_time = step, time.monotonic()
            pending = None
            while step < self.config.train_steps and signals.received is None:
                # The device computes the step before while this batch is taken and placed.
                batch = put_batch(next(stream), self.setup)
                state, metrics = train_step(state, batch)
                step += 1
                # One step behind, so that the device always has the next one to start on.
                self._look_at(pending)
                pending = (step, metrics)
                if self._pause_after(step) or signals.received is not None:
                    self._look_at(pending)
                    pending = None
                    self._between(step, state, stream, signals.received is not None)
            self._look_at(pending)
            if not self.validation and signals.received is None:
                self._evaluate(step, state)
        self.checkpoints.wait()
        self._report(stream)
        drawn = pictures.draw(directory, layer_names(self.setup.run.model))
        return TrainResult(step, signals.received, self.validation, self.load, drawn)

    def _pause_after(self, step: int) -> bool:
        config = self.config
        periods = (config.eval_period, config.checkpoint_period)
        return step == config.train_steps or any(step % period == 0 for period in periods)

    def _between(self, step: int, state: Any, stream: Stream, leaving: bool) -> None:
        """Evaluates and saves where due. The stream stands right behind the step's batch."""
        last, loss = step == self.config.train_steps, None
        if (last or step % self.config.eval_period == 0) and not leaving:
            loss = self._evaluate(step, state)
        if last or leaving or step % self.config.checkpoint_period == 0:
            self.checkpoints.save(state, stream.state(), self.identity, loss)
            self.saved_step = step
        self.logged_step, self.logged_time = step, time.monotonic()  # rates leave pauses out

    def _look_at(self, pending: tuple[int, dict] | None) -> None:
        """Waits for a step's metrics: stops the run if they are not finite, logs them where due."""
        if pending is None:
            return
        step, metrics = pending
        objective, norm = jax.device_get((metrics["sums"].objective, metrics["gradient_norm"]))
        if not (math.isfinite(objective) and math.isfinite(norm)):
            self._stop_not_finite(step, float(objective), float(norm))
        if step % self.config.log_period and step not in (1, self.config.train_steps):
            self.progress.update(step)
            return
        now, values = time.monotonic(), scalars(self.setup.run.model, metrics)
        values |= self.rates.over(step - self.logged_step, now - self.logged_time)
        self.logged_step, self.logged_time = step, now
        self.writer.write(step, "train", values, layer_arrays(metrics))
        self.progress.update(step, values)

    def _stop_not_finite(self, step: int, objective: float, norm: float) -> None:
        self.checkpoints.wait()
        kept = (
            "no checkpoint was saved before it"
            if self.saved_step is None
            else f"the last good checkpoint is of step {self.saved_step}"
        )
        raise RunError(
            f"The loss at step {step} is not finite "
            f"(sum {objective}, gradient norm {norm}); {kept}."
        )

    def _evaluate(self, step: int, state: Any) -> float:
        values, arrays = self.evaluator(state.params)
        self.writer.write(step, "validation", values, arrays)
        self.validation, self.load = values, arrays.get("load")
        self.progress.message(
            f"step {step}: validation loss {values['loss']:.4f}, "
            f"accuracy {values['accuracy']:.4f} (unigram entropy {values['unigram_entropy']:.4f})"
        )
        return values["loss"]

    def _report(self, stream: Stream) -> None:
        report = stream.report()
        if report:
            said = ", ".join(
                f"{name.replace('_', ' ')} {count:,}" for name, count in report.items()
            )
            self.progress.message(f"data: {said}")


def _rates(setup: Setup) -> Rates:
    run, batch = setup.run, setup.run.batch
    device = setup.mesh.devices.flat[0]
    if device.platform == "cpu":
        peak: float | None = measured_matmul_rate(run.model.dtype)
    else:
        peak = peak_flops(device.device_kind, run.model.dtype)
        peak = peak and peak * setup.mesh.size
    flops = train_flops(run.model, batch.input_length, batch.target_length)
    tokens = batch.batch_size * (batch.input_length + batch.target_length)
    return Rates(tokens, flops * batch.batch_size, peak)


class _Signals:
    """Remembers SIGTERM and ctrl-C until the step is done; a second ctrl-C interrupts at once."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "_Signals":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _: FrameType | None) -> None:
        if self.received == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
