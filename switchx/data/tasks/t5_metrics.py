"""Metrics and postprocessors of the package t5 under their own names, imported when first used."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Metric = Callable[..., Mapping[str, Any]]
_OF_ANSWERS = ("squad", "trivia_qa")  # compare with every answer that a question has


def predicted(name: str) -> Metric:
    """A metric of predictions."""

    def metric(targets: Sequence[Any], predictions: Sequence[Any]) -> Mapping[str, Any]:
        return dict(_metrics(name)(targets, predictions))

    metric.__name__ = name
    return metric


def of_answers(name: str) -> Metric:
    """The same where each target is the list of all answers: of a metric of texts, the first."""
    whole = predicted(name)

    def first(targets: Sequence[Any], predictions: Sequence[Any]) -> Mapping[str, Any]:
        return whole([answers[0] for answers in targets], predictions)

    first.__name__ = name
    return whole if name in _OF_ANSWERS else first


def rank_classification(targets: Sequence[Any], scores: Sequence[float]) -> Mapping[str, Any]:
    """The share of questions whose likeliest answer is the right one, in per cent."""
    return dict(_metrics("rank_classification")(targets, scores))


def all_answers(text: str, example: Any = None, is_target: bool = False) -> Any:
    """Of a target all answers, of a prediction itself."""
    from t5.data import postprocessors

    return postprocessors.qa(text, example, is_target)


def ranked_answer(score: Any, example: Any = None, is_target: bool = False) -> Any:
    """Of a target what `rank_classification` takes, of a score itself."""
    from t5.data import postprocessors

    return postprocessors.rank_classification(score, example, is_target)


def _metrics(name: str) -> Any:
    from t5.evaluation import metrics

    return getattr(metrics, name)
