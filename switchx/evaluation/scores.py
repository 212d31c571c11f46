"""A model's answers to tasks, and what each task's own metrics say of them."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax

from switchx import hosts, inference
from switchx.data.grades import ANSWER_SCORES, PREDICT, SCORE, Grade
from switchx.errors import first_line
from switchx.evaluation import predictions
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


class Scorer:
    """Lets a model answer tasks, and grades the answers. Every host calls it alike.

    Args:
      decoding: how answers are found; its batch size holds for scoring too.
      eos_id: of the tasks' vocabulary.
      ungraded: the other tasks, and why they are left out; {} leaves that unsaid.
      model_dir: below which the answers are written; None writes none.
      say: is given a line on each thing that has no score.
    """

    def __init__(
        self,
        setup: Setup,
        tasks: Sequence[Task],
        decoding: inference.DecodingConfig,
        eos_id: int,
        ungraded: Mapping[str, str],
        model_dir: str | None,
        say: Callable[[str], None],
    ):
        self._setup, self._tasks, self._decoding, self._eos_id = setup, tasks, decoding, eos_id
        self._ungraded, self._model_dir, self._say = ungraded, model_dir, say
        self._said: set[str] = set()

    def __call__(self, params: Params, step: int) -> Iterator[tuple[str, dict[str, float]]]:
        """Yields each task's name and the values of its metrics, as soon as they are there.

        What a task's metrics raise is said, and costs nothing but their values.
        """
        if self._ungraded:
            names = (f"{name} {why}" for name, why in self._ungraded.items())
            self._say_once(f"tasks without scores: {', '.join(names)}")
        for task in self._tasks:
            if long := task.long_targets:
                self._say_once(
                    f"{task.name}: {long:,} of {len(task.targets):,} targets are longer than "
                    f"TASK_FEATURE_LENGTHS['targets']={self._decoding.length}, which cuts them "
                    "and the answers"
                )
            yield task.name, self._graded(params, step, task)

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._say(line)
        self._said.add(line)

    def _graded(self, params: Params, step: int, task: Task) -> dict[str, float]:
        """A task's values: those of the first host, on which alone its metrics run."""
        given = self._asked(params, task)
        values: dict[str, float] = {}
        if hosts.is_first():
            grade = task.grade(*given)
            values = grade.values
            for problem in grade.problems:
                self._say(f"{task.name}: {problem}")
            self._write(task.name, step, grade)
        told: dict[str, float] = json.loads(hosts.announced(json.dumps(values)))
        return told

    def _write(self, task: str, step: int, grade: Grade) -> None:
        """Scores are worth more than the answers' file: one that cannot be written is said."""
        if self._model_dir is None:
            return
        try:
            predictions.write(self._model_dir, task, step, grade.lines)
        except Exception as error:  # what a task's own code made of answers may be anything
            self._say(f"{task}: its answers are not written: {first_line(error)}")

    def _asked(self, params: Params, task: Task) -> tuple[Any, Any, Any]:
        """Answers, targets' scores and answers' scores, as far as the metrics need them."""
        model, inputs, size = self._setup.model, task.inputs, self._decoding.batch_size
        answers = scores = of_answers = None
        with jax.set_mesh(self._setup.mesh):
            if PREDICT in task.needs:
                length = self._setup.run.batch.input_length
                rows = inputs, self._decoding, length, self._eos_id
                answers = list(inference.predict(model, params, *rows))
            if SCORE in task.needs:
                scores = inference.score_rows(model, params, inputs, task.targets, size)
            if ANSWER_SCORES in task.needs and answers is not None:
                of_answers = inference.score_rows(model, params, inputs, answers, size)
        return answers, scores, of_answers
