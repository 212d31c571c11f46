"""The steps of a run, and what happens between them: logs, evaluations, saves, rollbacks."""

import contextlib
import dataclasses
import functools
import signal
from collections.abc import Callable, Iterator
from typing import Any

import jax

from switchx.errors import RunError, first_line
from switchx.hosts import Interruption
from switchx.model import Params
from switchx.training.bad_loss import BadLoss, LossWatch
from switchx.training.batches import Batch, put_rows
from switchx.training.checkpoints.checkpoints import Checkpoints, History, Restored
from switchx.training.feed import Evaluation, Stream
from switchx.training.hangs import EVALUATION, PROFILE, ROLLBACK, SAVE, SCORING, STEP, HangWatch
from switchx.training.log import RunLog
from switchx.training.not_finite import Inquiry
from switchx.training.profile import Profiler, pause
from switchx.training.readings import LOSS, Result, Scores, loss_of
from switchx.training.state import Setup, TrainState


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    Attributes:
      step: steps done.
      stopped_by: the signal that ended it early, or None.
      validation: scalars of the last evaluation.
      load: last validation load per expert, [layers, E]; None for a dense model.
      first_step: steps that were done before. Where that is all of them nothing was trained, and
        the result is what the finished run left.
    """

    step: int
    stopped_by: signal.Signals | None
    validation: dict[str, float]
    load: Any
    first_step: int = 0


class Loop:
    """The steps of one run from `began` on.

    Args:
      stream: at the start of the data; it is moved to where `began` stands.
    """

    def __init__(
        self,
        setup: Setup,
        checkpoints: Checkpoints,
        stream: Stream,
        evaluation: Evaluation,
        log: RunLog,
        profiler: Profiler,
        hangs: HangWatch,
        inquiry: Inquiry,
        began: Restored,
    ):
        self._setup, self._config = setup, setup.run.trainer
        self._checkpoints, self._stream = checkpoints, stream
        self._evaluation, self._log = evaluation, log
        self._profiler, self._hangs, self._inquiry = profiler, hangs, inquiry
        self._began, self._first_step = began, began.step
        # Where a rollback to the start goes on; a position takes its time to say.
        self._data_start = stream.state() if self._config.on_bad_loss == "skip" else {}
        if began.positions:
            stream.restore(began.positions)
        self._saved_step = None if began.record else began.step
        self._batch_size = setup.run.batch.batch_size
        self._skipped = began.history.batches - began.step  # of the batches drawn by any step
        self._watch = LossWatch(self._config, began.history.losses)
        self._rollbacks = 0
        self._validation: dict[str, float] = {}
        self._load: Any = None
        self._scores = Scores()  # of the last evaluation

    def run(
        self, train_step: Callable[[TrainState, Batch], tuple[TrainState, dict]]
    ) -> TrainResult:
        """Trains to the last step, or until the run is asked to stop.

        Raises:
          RunError: the loss is bad and may not be skipped, or a file cannot be written.
        """
        state: Any = self._began.state
        step = self._began.step
        with self._hangs, Interruption() as interruption, contextlib.closing(self._profiler):
            pending: Any = None
            looked: Any
            self._hangs.begin(STEP)
            leaving = interruption.now()
            while step < self._config.train_steps and not leaving:
                metrics: Any
                with self._profiler.step(step + 1, pending):
                    # The device computes the step before while these rows are taken and placed.
                    self._hangs.part = "waiting for data"
                    with jax.profiler.TraceAnnotation("next batch"):
                        batch = put_rows(next(self._stream), self._setup)
                    self._hangs.part = "in the step"
                    state, metrics = train_step(state, batch)
                    # One step behind, so that the device always has the next one to start on.
                    looked, bad = pending, self._look_at(pending)
                step += 1
                if self._log.unread:
                    interruption.note(signal.SIGPIPE)
                pending, leaving = (step, metrics, batch), interruption.now()
                if not bad and (self._pause_after(step) or leaving):
                    looked, bad, pending = pending, self._look_at(pending), None
                    if not bad:
                        self._between(step, state, leaving is not None)
                if bad:
                    held, params = int(state.step) == ~(bad.step - 1), state.params
                    state = metrics = pending = None  # room for what comes in its place
                    if held:
                        self._look_into(bad, params, looked[2])
                    params = looked = None
                    state, step = self._roll_back(bad)
            if not self._validation and not leaving:
                self._evaluate(step, state)
            self._hangs.begin(SAVE)
            self._checkpoints.wait()
            self._log.sync()
        self._report()
        return TrainResult(step, leaving, self._validation, self._load, self._first_step)

    def _pause_after(self, step: int) -> bool:
        evaluating = step % self._config.eval_period == 0
        return self._saves_at(step) or evaluating or self._profiler.ends_at(step)

    def _saves_at(self, step: int) -> bool:
        config = self._config
        due = step == config.train_steps or step % config.checkpoint_period == 0
        return due or step in config.checkpoint_steps

    def _between(self, step: int, state: TrainState, leaving: bool) -> None:
        """Evaluates and saves where due. The stream stands right behind the step's batch."""
        if self._profiler.ends_at(step):
            self._hangs.begin(PROFILE)
            self._profiler.close()
        last, found = step == self._config.train_steps, None
        evaluating = (last or step % self._config.eval_period == 0) and not leaving
        if evaluating:
            found = self._evaluate(step, state)
        if leaving or self._saves_at(step):
            drawn = step + self._skipped
            history = History(drawn, self._watch.losses, self._examples(drawn))
            self._hangs.begin(SAVE)
            self._log.sync()  # a run that goes on from here has all rows up to here
            with pause("saving"):
                self._checkpoints.save(state, self._stream.state(), found, history)
            self._saved_step = step
        if evaluating and not self._scores.tasks:  # behind: a hundred tasks take their time
            with pause("evaluating"):
                self._log.tasks(step, self._each_task(state), self._scores)
        self._log.resume(step)
        self._hangs.begin(STEP)

    def _each_task(self, state: TrainState) -> Iterator[tuple[str, Result]]:
        """What is measured of each task; a run's only one was measured with the whole."""
        self._hangs.begin(EVALUATION)
        left = dict.fromkeys(self._scores.tasks)
        for task, result in self._evaluation.each_task(state.params):
            left.pop(task, None)
            yield task, result
            self._hangs.begin(EVALUATION)
        for task in left:
            yield task, (self._validation, {})

    def _examples(self, batches: int) -> int:
        """Drawn from the data in so many batches, of which those before this start count too."""
        before = self._began.history
        return before.examples + (batches - before.batches) * self._batch_size

    def _evaluate(self, step: int, state: TrainState) -> dict[str, float]:
        """Evaluates, and scores the tasks; returns what a checkpoint may be the best by."""
        self._hangs.begin(EVALUATION)
        with pause("evaluating"):
            values, layers = self._evaluation(state.params)
            if not self._validation:
                self._log.say(f"evaluation reads {self._evaluation.share}")
            self._validation, self._load = values, layers.get("load")
            begin = functools.partial(self._hangs.begin, SCORING)
            self._scores = self._evaluation.scores(state.params, step, self._log.say, begin)
            self._log.validation(step, (values, layers), self._scores)
            if self._scores.tasks:  # a run that goes on from a checkpoint of this step has them
                self._log.tasks(step, self._each_task(state), self._scores)
        found = {LOSS: values["loss"], **self._scores.by_name()}
        self._log.best(self._config.best_score, found)
        return found

    def _look_at(self, pending: tuple[int, dict, Batch] | None) -> BadLoss | None:
        """Waits for a step's metrics: returns what is wrong with them, or logs them where due."""
        if pending is None:
            return None
        step, metrics, _ = pending
        bad = self._watch.look_at(step, *loss_of(metrics))
        self._hangs.begin(STEP)
        if not bad:
            self._log.train(step, metrics)
        return bad

    def _look_into(self, bad: BadLoss, params: Params, batch: Batch) -> None:
        """Says what was not finite first. Whatever fails in that hides nothing of the loss."""
        self._hangs.begin(ROLLBACK)
        try:
            said = self._inquiry.look_into(bad, bad.step + self._skipped, params, batch)
        except Exception as error:  # of the compiler, for want of memory, of the file system
            said = f"What was not finite first in step {bad.step} is unknown: {first_line(error)}"
        self._log.say(said)

    def _roll_back(self, bad: BadLoss) -> tuple[TrainState, int]:
        """The state of the last checkpoint, or of the start; the stream goes behind the bad batch.

        All batches between are left out, as PaLM did. A run that is killed before its next
        checkpoint comes to the same bad batch again, and so to the same end.
        """
        self._hangs.begin(ROLLBACK)
        self._profiler.close()
        self._checkpoints.wait()
        limit = self._config.max_rollbacks
        if self._config.on_bad_loss == "stop" or self._rollbacks == limit:
            raise RunError(self._why_it_stops(bad))
        self._rollbacks += 1
        last = bad.step + self._skipped
        found = self._checkpoints.base_or_start()
        step, left_out = found.step, last - found.history.batches
        self._stream.restore(found.positions or self._data_start)
        self._stream.skip(self._examples(last) - found.history.examples)
        self._saved_step = None if found.record else step
        self._skipped = last - step
        self._watch = LossWatch(self._config, found.history.losses)
        self._log.roll_back(bad.step, step, left_out, bad.loss)
        self._log.say(
            f"The loss at step {bad.step} {bad.why}: back to step {step}, and on without the "
            f"{left_out} batches up to it (rollback {self._rollbacks} of at most {limit})"
        )
        self._hangs.begin(STEP)
        return found.state, step

    def _why_it_stops(self, bad: BadLoss) -> str:
        kept = (
            "no checkpoint was saved before it"
            if self._saved_step is None
            else f"the last good checkpoint is of step {self._saved_step}"
        )
        skipping = self._config.on_bad_loss == "skip"
        spent = f", and MAX_ROLLBACKS={self._config.max_rollbacks} are spent" if skipping else ""
        return f"The loss at step {bad.step} {bad.why}; {kept}{spent}."

    def _report(self) -> None:
        report = self._stream.report()
        if report:
            said = (f"{name.replace('_', ' ')} {count:,}" for name, count in report.items())
            self._log.say(f"data: {', '.join(said)}")
