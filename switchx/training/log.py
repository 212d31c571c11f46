"""What a run says of itself: rows of metrics in its directory, lines for whoever watches."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax

from switchx import hosts
from switchx.terminal import Progress, side_by_side
from switchx.training.freezing import step_flops
from switchx.training.metrics import MetricWriter, NoWriter, Throughput
from switchx.training.peak import measured_matmul_rate, peak_flops
from switchx.training.readings import Result, Scores, as_fields, read_metrics
from switchx.training.state import Setup
from switchx.writers import Writers


class RunLog:
    """Writes and shows what a run measures, from `first_step` on."""

    def __init__(self, directory: Path, setup: Setup, first_step: int, writers: Writers):
        trainer = setup.run.trainer
        self._period, self._last = trainer.log_period, trainer.train_steps
        shown = hosts.is_first()  # of several hosts the first one speaks
        self._progress = Progress(trainer.train_steps, "step", first_step, shown=shown)
        self._writer = (
            MetricWriter(directory, first_step, writers, self.say) if shown else NoWriter()
        )
        self._rates = _rates(setup)
        self._missed = False  # whether BEST_SCORE was
        self._since = (first_step, time.monotonic())  # what the next rates are measured from

    @property
    def unread(self) -> bool:
        """Whether nobody can read any more what is shown: the pipe or the terminal is gone."""
        return self._progress.gone

    def say(self, text: str) -> None:
        """Shows a line."""
        self._progress.message(text)

    def train(self, step: int, metrics: dict) -> None:
        """A step's metrics, where a row of them is due."""
        if step % self._period and step not in (1, self._last):
            self._progress.update(step)
            return
        values, layers = read_metrics(metrics)
        first, began = self._since
        values |= self._rates.over(step - first, time.monotonic() - began)
        self.resume(step)
        self._writer.write(step, "train", values, layers)
        news = (f"loss {values['loss']:.4f}", f"{values['tokens_per_second']:,.0f} tokens/s")
        self._progress.update(step, news, values["steps_per_second"])

    def resume(self, step: int) -> None:
        """Steps go on after a pause, which the rates leave out."""
        self._since = (step, time.monotonic())

    def validation(self, step: int, result: Result, scores: Scores) -> None:
        """An evaluation, with averages of the tasks' scores where they have some."""
        values, layers = result
        self._writer.write(step, "validation", values | as_fields(scores.averages), layers)
        self.say(
            f"step {step}: validation loss {values['loss']:.4f}, "
            f"accuracy {values['accuracy']:.4f} (unigram entropy {values['unigram_entropy']:.4f})"
        )

    def tasks(self, step: int, results: Iterator[tuple[str, Result]], scores: Scores) -> None:
        """The same of each task, with its own scores, written as it comes."""
        losses = {}
        for task, (values, _) in results:
            # Without the load of every expert: a hundred tasks of 2,048 would be all of the file.
            own = as_fields(scores.tasks.get(task, {}))
            self._writer.write(step, f"validation/{task}", values | own)
            losses[task] = values["loss"]
        if losses and losses.keys() != scores.tasks.keys():
            self.say(f"step {step}: validation loss of each task")
            self._say_aside(losses)
        if scores.tasks:
            self.say(f"step {step}: scores")
            self._say_aside(scores.by_name())

    def best(self, name: str, found: Mapping[str, float]) -> None:
        """Says once that what the best checkpoint is told by is not there, and what is."""
        if name not in found and not self._missed:
            self.say(
                f"BEST_SCORE={name!r} is not among what was measured, {', '.join(found)}: no "
                "checkpoint is kept as the best by it"
            )
        self._missed |= name not in found

    def _say_aside(self, values: Mapping[str, float]) -> None:
        for line in side_by_side(values):
            self.say(f"  {line}")

    def roll_back(self, bad_step: int, step: int, left_out: int, loss: float) -> None:
        """Goes back from a bad step to an earlier one, behind which no rows stay."""
        self._writer.roll_back(bad_step, step, left_out, loss)
        self._progress.update(step)
        self.resume(step)

    def sync(self) -> None:
        """All rows so far outlive this process."""
        self._writer.sync()

    def close(self) -> None:
        self._writer.close()
        self._progress.close()


def _rates(setup: Setup) -> Throughput:
    run, batch = setup.run, setup.run.batch
    device = setup.mesh.devices.flat[0]
    if device.platform == "cpu":
        # Processes that share a machine share its cores: the rate of one says nothing of all.
        alone = jax.process_count() == 1
        peak: float | None = measured_matmul_rate(run.model.dtype) if alone else None
    else:
        peak = peak_flops(device.device_kind, run.model.dtype)
        peak = peak and peak * setup.mesh.size
    tokens = batch.batch_size * (batch.input_length + batch.target_length)
    return Throughput(tokens, step_flops(run, setup.model), peak)
