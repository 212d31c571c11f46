"""Tasks with metrics of their own: what a model is asked, and what its answers are worth.

The metrics are seqio's objects, which also hold the plain metric functions of a task, and they are
given what `seqio.Evaluator` gives them: the examples in their order, and the answers or scores in
the same one.
"""

import contextlib
import dataclasses
import functools
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow_datasets as tfds
from seqio.metrics import CollectingMetric, ModelOutputType, Scalar

from switchx.data.config import DataConfig
from switchx.data.grades import ANSWER_SCORES, PREDICT, SCORE, Grade, long_targets, plain
from switchx.data.streamed import pipeline
from switchx.data.tasks import lookup, sources
from switchx.errors import first_line

_NEEDS = {
    ModelOutputType.PREDICTION: {PREDICT},
    ModelOutputType.PREDICTION_WITH_AUX: {PREDICT, ANSWER_SCORES},
    ModelOutputType.SCORE: {SCORE},
    ModelOutputType.SCORE_WITH_INTERMEDIATES: {SCORE},
}
_SPLIT = "validation"


def graded_tasks(config: DataConfig, most: int | None = None) -> "list[GradedTask]":
    """See `switchx.data.graded_tasks`."""
    tasks = seqio.get_subtasks(lookup.find_provider(config))
    return [GradedTask(task, config, most) for task in tasks if _why_not(task) is None]


def ungraded_tasks(config: DataConfig) -> dict[str, str]:
    """See `switchx.data.ungraded_tasks`."""
    tasks = seqio.get_subtasks(lookup.find_provider(config))
    found = {task.name: _why_not(task) for task in tasks}
    return {name: why for name, why in found.items() if why is not None}


def _why_not(task: Any) -> str | None:
    """Why a task has no scores; None where it has some."""
    if not task.metric_objs:
        return "has no metrics"
    if _SPLIT not in task.splits:
        return f"has no split {_SPLIT!r}"
    return None


class GradedTask:
    """A task with metrics, and the examples of its validation split, read when they are wanted.

    Attributes:
      name: of the seqio task.
      needs: what the metrics are computed from: answers ("predict"), the log-probabilities of the
        targets ("score"), or those of the answers ("answer_scores").
    """

    def __init__(self, task: Any, config: DataConfig, most: int | None):
        self._task, self._config, self._most = task, config, most
        self.name: str = task.name
        self.needs = set().union(*(_NEEDS[metric.model_output_type] for metric in task.metric_objs))
        self._targets: Any = None  # as the postprocessor left them, the same every time

    @functools.cached_property
    def _examples(self) -> list[dict[str, Any]]:
        """Raises UserError where they cannot be read."""
        config = dataclasses.replace(self._config, pack=False)
        sources.check_sources(self._task, config, [_SPLIT])
        with pipeline.reporting_errors(self._task, config):
            examples = pipeline.task_examples(self._task, config, _SPLIT)
            if self._most is not None:
                examples = examples.take(self._most)
            return list(tfds.as_numpy(examples))

    @property
    def inputs(self) -> list[list[int]]:
        """The token ids of each example's inputs."""
        return self._rows("inputs")

    @property
    def targets(self) -> list[list[int]]:
        """The token ids of each example's targets."""
        return self._rows("targets")

    def _rows(self, feature: str) -> list[list[int]]:
        return [np.trim_zeros(example[feature], "b").tolist() for example in self._examples]

    @property
    def long_targets(self) -> int:
        """How many targets were cut to TASK_FEATURE_LENGTHS: no answer can be as long."""
        limit = self._config.feature_lengths["targets"]
        return long_targets(self._examples, self._task.output_features["targets"], limit)

    def grade(
        self,
        answers: Sequence[Sequence[int]] | None = None,
        scores: Sequence[float] | None = None,
        answer_scores: Sequence[float] | None = None,
    ) -> Grade:
        """What the metrics say of answers, scores or both, in the order of the examples.

        A metric that raises costs nothing but its own values. The same answers have the same
        grade: what metrics draw at random, as ROUGE does to average, is drawn from one seed.

        Args:
          answers: token ids, the end of sequence included; needed for "predict".
          scores: log-probabilities of the targets, for "score".
          answer_scores: log-probabilities of the answers, for "answer_scores".
        """
        given = self._outputs(answers, scores, answer_scores)
        values: dict[str, float] = {}
        inferences: dict[str, Any] = {}
        problems: list[str] = []
        with _same_random_numbers():
            for number, metric in enumerate(self._task.metric_objs):
                try:
                    found = self._computed(metric, given, inferences)
                    _add(values, found, problems)
                except Exception as error:  # of a metric's own code, which may raise anything
                    said = f"{type(error).__name__}: {first_line(error)}"
                    problems.append(f"{_name(self._task, number)} raised {said}")
        answered = self._decoded(answers)
        return Grade(values, problems, lambda: self._lines(inferences, answered, scores))

    def _outputs(
        self,
        answers: Sequence[Sequence[int]] | None,
        scores: Sequence[float] | None,
        answer_scores: Sequence[float] | None,
    ) -> dict[ModelOutputType, Any]:
        """What a metric of each type is given: what T5X's models give it."""
        given: dict[ModelOutputType, Any] = {}
        if answers is not None:
            given[ModelOutputType.PREDICTION] = padded(answers)
        if answers is not None and answer_scores is not None:
            aux = {"scores": np.asarray(answer_scores)}
            given[ModelOutputType.PREDICTION_WITH_AUX] = padded(answers), aux
        if scores is not None:
            of_targets = np.asarray(scores)
            tokens = padded(self.targets)
            within = {"target_tokens": (tokens,), "loss_weights": ((tokens > 0).astype(float),)}
            given[ModelOutputType.SCORE] = of_targets
            given[ModelOutputType.SCORE_WITH_INTERMEDIATES] = of_targets, {"decoder": within}
        return given

    def _computed(
        self, metric: Any, given: Mapping[ModelOutputType, Any], inferences: dict[str, Any]
    ) -> Mapping[str, Any]:
        """One metric's values; what it made of targets and answers is put into `inferences`."""
        features, output = self._task.output_features, given[metric.model_output_type]
        filled = metric.from_model_output(self._examples, output, features, "targets")
        if isinstance(filled, CollectingMetric):
            values, seen = filled.actual_compute(self._examples, features, "targets", self._targets)
            self._targets = seen["targets"]
        else:
            values, seen = filled.compute(), getattr(filled, "targets_and_inferences", None)
        inferences |= seen or {}
        return values

    def _decoded(self, answers: Sequence[Sequence[int]] | None) -> list[Any]:
        vocabulary = self._task.output_features["targets"].vocabulary
        return [vocabulary.decode(answer) for answer in answers or ()]

    def _lines(
        self,
        inferences: Mapping[str, Any],
        answered: Sequence[Any],
        scores: Sequence[float] | None,
    ) -> Iterator[dict[str, Any]]:
        """For each example its inputs and target, what was answered, and what was made of that."""
        columns = {
            "target": inferences.get("targets"),
            "output": answered,
            "prediction": inferences.get("prediction"),
            "score": scores,
        }
        there = {name: of for name, of in columns.items() if of is not None and len(of)}
        for row, example in enumerate(self._examples):
            line = {"inputs": self._text(example, "inputs")}
            line |= {name: plain(of[row]) for name, of in there.items()}
            line.setdefault("target", self._text(example, "targets"))
            yield line

    def _text(self, example: Mapping[str, Any], feature: str) -> Any:
        given = example.get(f"{feature}_pretokenized")
        if given is not None:
            return plain(given)
        return plain(self._task.output_features[feature].vocabulary.decode(example[feature]))


def padded(rows: Iterable[Sequence[int]]) -> np.ndarray:
    """int32 [N, L] with zeros behind each row: the form in which seqio takes answers."""
    rows = list(rows)
    token_NL = np.zeros((len(rows), max(map(len, rows), default=1) or 1), np.int32)
    for token_L, row in zip(token_NL, rows, strict=True):
        token_L[: len(row)] = row
    return token_NL


def _add(values: dict[str, float], found: Mapping[str, Any], problems: list[str]) -> None:
    """Adds what a metric found; what is no number, or there already, is a problem."""
    for name, value in found.items():
        if isinstance(value, Scalar):
            value = value.value
        if name in values:
            problems.append(f"two metrics give {name!r}, of which the first is kept")
        elif (number := _number(value)) is None:
            problems.append(f"{name!r} is no number, and is not kept")
        else:
            values[name] = number


def _number(value: Any) -> float | None:
    """A metric's value, which may be of any type; None where that is no number's."""
    try:
        return None if isinstance(value, str) or np.ndim(value) else float(value)
    except (TypeError, ValueError):
        return None


def _name(task: Any, number: int) -> str:
    """A metric as its author knows it: objects come first, then functions by what they take."""
    metric = task.metric_objs[number]
    functions = task.metric_fns
    first = len(task.metric_objs) - len(functions)
    of = functions[number - first] if number >= first else metric
    of = getattr(of, "func", of)  # of a functools.partial
    return getattr(of, "__name__", type(of).__name__)


@contextlib.contextmanager
def _same_random_numbers() -> Iterator[None]:
    """Within, Python's and NumPy's random numbers are the same each time; nobody else notices."""
    numbers, state = np.random.get_state(), random.getstate()
    np.random.seed(0)
    random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(numbers)
        random.setstate(state)
