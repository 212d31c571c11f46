"""The steps of a run, and what happens between them: logs, evaluations, saves, rollbacks."""

import dataclasses
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax

from switchx.errors import RunError
from switchx.hosts.interruption import Interruption
from switchx.model import train_flops
from switchx.terminal import Progress, side_by_side
from switchx.training.bad_loss import BadLoss, LossWatch
from switchx.training.batches import Evaluation, HostBatch, put_rows
from switchx.training.checkpoints import Checkpoints, History, Restored
from switchx.training.checkpoints.positions import PositionSave
from switchx.training.host_rows import HostShards
from switchx.training.metrics import MetricWriter, Rates
from switchx.training.peak import measured_matmul_rate, peak_flops
from switchx.training.state import Setup
from switchx.training.step import layer_arrays, scalars


class Stream(Protocol):
    """An endless stream of this host's rows that knows its position in each of its shards."""

    def __next__(self) -> HostBatch: ...

    def state(self) -> dict[int, bytes]: ...

    def restore(self, states: Mapping[int, bytes]) -> None: ...

    def report(self) -> dict[str, int]: ...


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    Attributes:
      step: steps done.
      stopped_by: the signal that ended it early, or None.
      validation: scalars of the last evaluation.
      load: last validation load per expert, [layers, E]; None for a dense model.
    """

    step: int
    stopped_by: signal.Signals | None
    validation: dict[str, float]
    load: Any


class Loop:
    """The steps of one run, and what happens between them."""

    def __init__(
        self,
        setup: Setup,
        shards: HostShards,
        checkpoints: Checkpoints,
        own_identity: dict[str, Any],
        writer: MetricWriter,
        progress: Progress,
        evaluator: Evaluation,
    ):
        self.setup, self.shards, self.config = setup, shards, setup.run.trainer
        self.checkpoints, self.identity = checkpoints, own_identity
        self.writer, self.progress, self.evaluator = writer, progress, evaluator
        self.rates = _rates(setup)
        self.saved_step: int | None = None
        self.rollbacks = 0
        self.validation: dict[str, float] = {}
        self.load: Any = None

    def run(
        self,
        train_step: Callable,
        stream: Stream,
        started: Restored,
        data_start: Mapping[int, bytes],
    ) -> TrainResult:
        self.data_start = data_start
        state, step = self._go_on_from(started)
        with Interruption() as interruption:
            pending, leaving = None, interruption.now()
            while step < self.config.train_steps and not leaving:
                # The device computes the step before while these rows are taken and placed.
                batch = put_rows(next(stream), self.setup)
                state, metrics = train_step(state, batch)
                step += 1
                # One step behind, so that the device always has the next one to start on.
                bad = self._look_at(pending)
                pending, leaving = (step, metrics), interruption.now()
                if not bad and (self._pause_after(step) or leaving):
                    bad, pending = self._look_at(pending), None
                    if not bad:
                        self._between(step, state, stream, leaving is not None)
                if bad:
                    state = metrics = pending = None  # room for what comes in its place
                    state, step = self._roll_back(bad, stream)
            if not self.validation and not leaving:
                self._evaluate(step, state)
        self.checkpoints.wait()
        self._report(stream)
        return TrainResult(step, leaving, self.validation, self.load)

    def _pause_after(self, step: int) -> bool:
        config = self.config
        periods = (config.eval_period, config.checkpoint_period)
        return step == config.train_steps or any(step % period == 0 for period in periods)

    def _between(self, step: int, state: Any, stream: Stream, leaving: bool) -> None:
        """Evaluates and saves where due. The stream stands right behind the step's batch."""
        last, loss = step == self.config.train_steps, None
        evaluating = (last or step % self.config.eval_period == 0) and not leaving
        if evaluating:
            loss = self._evaluate(step, state)
        if last or leaving or step % self.config.checkpoint_period == 0:
            positions = {n: x for n, x in stream.state().items() if n in self.shards.kept}
            saved = PositionSave(positions, self.shards.count)
            history = History(step + self.skipped, self.watch.losses)
            self.checkpoints.save(state, saved, self.identity, loss, history)
            self.saved_step = step
        if evaluating:  # behind the checkpoint: a hundred tasks take their time
            self._evaluate_tasks(step, state)
        self.logged_step, self.logged_time = step, time.monotonic()  # rates leave pauses out

    def _look_at(self, pending: tuple[int, dict] | None) -> BadLoss | None:
        """Waits for a step's metrics: returns what is wrong with them, or logs them where due."""
        if pending is None:
            return None
        step, metrics = pending
        sums, norm = jax.device_get((metrics["sums"], metrics["gradient_norm"]))
        loss = float(sums.cross_entropy) / max(float(sums.weight), 1.0)
        bad = self.watch.look_at(step, loss, float(sums.objective), float(norm))
        if bad:
            return bad
        if step % self.config.log_period and step not in (1, self.config.train_steps):
            self.progress.update(step)
            return None
        now, values = time.monotonic(), scalars(self.setup.run.model, metrics)
        values |= self.rates.over(step - self.logged_step, now - self.logged_time)
        self.logged_step, self.logged_time = step, now
        self.writer.write(step, "train", values, layer_arrays(metrics))
        self.progress.update(step, _news(values), values["steps_per_second"])
        return None

    def _go_on_from(self, restored: Restored) -> tuple[Any, int]:
        """Returns a state and its step, whose history becomes the loop's."""
        step = int(restored.state.step)
        self.saved_step = step if self.checkpoints.steps() else None
        self.skipped = restored.history.batches - step  # of the batches drawn by any step
        self.watch = LossWatch(self.config, restored.history.losses)
        self.logged_step, self.logged_time = step, time.monotonic()
        return restored.state, step

    def _roll_back(self, bad: BadLoss, stream: Stream) -> tuple[Any, int]:
        """The state of the last checkpoint, or of the start; the stream goes behind the bad batch.

        All batches between are left out, as PaLM did. A run that is killed before its next
        checkpoint comes to the same bad batch again, and so to the same end.
        """
        self.checkpoints.wait()
        limit = self.config.max_rollbacks
        if self.config.on_bad_loss == "stop" or self.rollbacks == limit:
            raise RunError(self._why_it_stops(bad))
        self.rollbacks += 1
        last = bad.step + self.skipped
        found = self.checkpoints.restore_base(self.setup, self.shards)
        found = found or Restored(self.setup.init(), {})
        stream.restore(found.positions or self.data_start)
        for _ in range(last - found.history.batches):
            next(stream)
        state, step = self._go_on_from(found)
        self.skipped = last - step
        left_out = last - found.history.batches
        self.writer.roll_back(bad.step, step, left_out, bad.loss)
        self.progress.update(step)
        self.progress.message(
            f"The loss at step {bad.step} {bad.why}: back to step {step}, and on without the "
            f"{left_out} batches up to it (rollback {self.rollbacks} of at most {limit})"
        )
        return state, step

    def _why_it_stops(self, bad: BadLoss) -> str:
        kept = (
            "no checkpoint was saved before it"
            if self.saved_step is None
            else f"the last good checkpoint is of step {self.saved_step}"
        )
        skipping = self.config.on_bad_loss == "skip"
        spent = f", and MAX_ROLLBACKS={self.config.max_rollbacks} are spent" if skipping else ""
        return f"The loss at step {bad.step} {bad.why}; {kept}{spent}."

    def _evaluate(self, step: int, state: Any) -> float:
        values, arrays = self.evaluator(state.params)
        self.writer.write(step, "validation", values, arrays)
        self.validation, self.load = values, arrays.get("load")
        self.progress.message(
            f"step {step}: validation loss {values['loss']:.4f}, "
            f"accuracy {values['accuracy']:.4f} (unigram entropy {values['unigram_entropy']:.4f})"
        )
        return values["loss"]

    def _evaluate_tasks(self, step: int, state: Any) -> None:
        losses = {}
        for task, (values, _) in self.evaluator.each_task(state.params):
            # Without the load of every expert: a hundred tasks of 2,048 would be all of the file.
            self.writer.write(step, f"validation/{task}", values)
            losses[task] = values["loss"]
        if losses:
            self.progress.message(f"step {step}: validation loss of each task")
        for line in side_by_side(losses):
            self.progress.message(f"  {line}")

    def _report(self, stream: Stream) -> None:
        report = stream.report()
        if report:
            said = ", ".join(
                f"{name.replace('_', ' ')} {count:,}" for name, count in report.items()
            )
            self.progress.message(f"data: {said}")


def _news(values: Mapping[str, float]) -> list[str]:
    """What is shown of a row."""
    return [f"loss {values['loss']:.4f}", f"{values['tokens_per_second']:,.0f} tokens/s"]


def _rates(setup: Setup) -> Rates:
    run, batch = setup.run, setup.run.batch
    device = setup.mesh.devices.flat[0]
    if device.platform == "cpu":
        # Processes that share a machine share its cores: the rate of one says nothing of all.
        alone = jax.process_count() == 1
        peak: float | None = measured_matmul_rate(run.model.dtype) if alone else None
    else:
        peak = peak_flops(device.device_kind, run.model.dtype)
        peak = peak and peak * setup.mesh.size
    flops = train_flops(run.model, batch.input_length, batch.target_length)
    tokens = batch.batch_size * (batch.input_length + batch.target_length)
    return Rates(tokens, flops * batch.batch_size, peak)
