"""What a grade is: plain values, that import nothing."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

PREDICT, SCORE, ANSWER_SCORES = "predict", "score", "answer_scores"


@dataclasses.dataclass(frozen=True)
class Grade:
    """What a task's metrics say of a model's answers.

    Attributes:
      values: each metric's.
      problems: what could not be computed, a sentence without its end for each.
    """

    values: dict[str, float]
    problems: list[str]
    _make_lines: Callable[[], Iterable[dict[str, Any]]]

    @property
    def lines(self) -> Iterable[dict[str, Any]]:
        """For each example what it asks, its target and what was answered, as plain values."""
        return self._make_lines()


def plain(value: Any) -> Any:
    """The same as JSON has it: text for bytes, lists for arrays, None for what is not finite."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(plain(name)): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, int | bool):
        return value
    return str(value).encode("utf-8", "replace").decode()  # lone surrogates have no bytes


def long_targets(examples: Iterable[Mapping[str, Any]], feature: Any, limit: int) -> int:
    """How many examples' targets were longer than a limit to which they are cut by now.

    One is known to be by its text where the task kept it; else by its missing end of sequence.
    """
    return sum(_was_cut(example, feature, limit) for example in examples)


def _was_cut(example: Mapping[str, Any], feature: Any, limit: int) -> bool:
    tokens = example["targets"]
    if len(tokens) < limit:
        return False
    text = example.get("targets_pretokenized")
    if isinstance(text, bytes):
        return len(feature.vocabulary.encode(text.decode())) + feature.add_eos > limit
    return bool(feature.add_eos and tokens[-1] != feature.vocabulary.eos_id)
