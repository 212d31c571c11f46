"""A model's answers to tasks, and what each task's own metrics say of them."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Protocol

import jax
import numpy as np

from switchx import hosts, inference
from switchx.data.grades import ANSWER_SCORES, PREDICT, SCORE, Grade
from switchx.inference.prediction import pad
from switchx.model import Params
from switchx.training.state import Setup

Rows = Sequence[Sequence[int]]


class Task(Protocol):
    """A task with metrics: `switchx.data.grading.GradedTask`."""

    name: str
    needs: set[str]

    @property
    def inputs(self) -> Rows: ...

    @property
    def targets(self) -> Rows: ...

    @property
    def long_targets(self) -> int: ...

    def grade(
        self,
        answers: Rows | None = None,
        scores: Sequence[float] | None = None,
        answer_scores: Sequence[float] | None = None,
    ) -> Grade: ...


@dataclasses.dataclass(frozen=True)
class Scores:
    """What the tasks' metrics say of a model.

    Attributes:
      tasks: of each task the values of its metrics by name.
      said: lines on what is not among them.
    """

    tasks: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    said: list[str] = dataclasses.field(default_factory=list)


class Scorer:
    """Lets a model answer tasks, and grades the answers. Every host calls it alike.

    Args:
      decoding: how answers are found; its length and batch size hold for scoring too.
      eos_id: of the tasks' vocabulary.
      ungraded: the other tasks, and why they are left out.
    """

    def __init__(
        self,
        setup: Setup,
        tasks: Sequence[Task],
        decoding: inference.DecodingConfig,
        eos_id: int,
        ungraded: dict[str, str],
    ):
        self._setup, self._tasks, self._decoding = setup, tasks, decoding
        self._eos_id, self._ungraded = eos_id, ungraded

    def __call__(self, params: Params) -> Scores:
        """Scores parameters. What a task's metrics raise is said, and costs nothing else."""
        scores = Scores()
        if self._tasks:
            names = (f"{name} ({why})" for name, why in self._ungraded.items())
            scores.said.extend([f"without scores: {', '.join(names)}"] if self._ungraded else [])
        for task in self._tasks:
            if long := task.long_targets:
                scores.said.append(
                    f"{task.name}: {long:,} of {len(task.targets):,} targets are longer than "
                    f"TASK_FEATURE_LENGTHS['targets']={self._decoding.length} and were cut"
                )
            scores.tasks[task.name] = self._graded(params, task, scores.said)
        return scores

    def _graded(self, params: Params, task: Task, said: list[str]) -> dict[str, float]:
        """A task's values: those of the first host, since a metric may draw at random."""
        given = self._asked(params, task)
        found: tuple[dict[str, float], list[str]] = {}, []
        if hosts.is_first():
            grade = task.grade(*given)
            found = grade.values, grade.problems
        values, problems = json.loads(hosts.announced(json.dumps(found)))
        said.extend(f"{task.name}: {problem}" for problem in problems)
        return {name: float(value) for name, value in values.items()}

    def _asked(self, params: Params, task: Task) -> tuple:
        """Answers, targets' scores and answers' scores, as far as the metrics need them."""
        with jax.set_mesh(self._setup.mesh):
            answers = self._answers(params, task.inputs) if PREDICT in task.needs else None
            scores = of_answers = None
            if SCORE in task.needs:
                scores = self._scores(params, task.inputs, task.targets)
            if ANSWER_SCORES in task.needs and answers is not None:
                of_answers = self._scores(params, task.inputs, answers)
        return answers, scores, of_answers

    @property
    def _input_length(self) -> int:
        return self._setup.run.batch.input_length

    def _answers(self, params: Params, inputs: Rows) -> list[list[int]]:
        model = self._setup.model
        rows = inputs, self._decoding, self._input_length, self._eos_id
        return list(inference.predict(model, params, *rows))

    def _scores(self, params: Params, inputs: Rows, targets: Rows) -> list[float]:
        size, found = self._decoding.batch_size, list[float]()
        for first in range(0, len(inputs), size):
            encoder, target = (rows[first : first + size] for rows in (inputs, targets))
            encoder_BM = pad(encoder, size, self._input_length)
            target_BL = pad(target, size, self._decoding.length)
            scored_B = inference.score(self._setup.model, params, encoder_BM, target_BL)
            found += np.asarray(scored_B)[: len(encoder)].tolist()
        return found
