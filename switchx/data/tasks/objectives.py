"""What an objective asks of a row's lengths: plain arithmetic, known before anything is loaded."""

from collections.abc import Mapping
from typing import NamedTuple

from switchx.data.tasks import names
from switchx.errors import UserError

NOISE_DENSITY = 0.15
MEAN_SPAN = 3.0
# A prefix language model: a row is 14 tokens that are given and one span of 110, in 16 + 112.
_OTHER = {names.PYTHON_CODE_PREFIX: (0.884, 110.0)}


class SpanLengths(NamedTuple):
    """A full row of span corruption: tokens of text, spans cut out of it, tokens of targets."""

    tokens: int
    spans: int
    targets: int


def spans_of(task: str) -> tuple[float, float]:
    """Noise density and mean span length of one of this package's tasks."""
    return _OTHER.get(task, (NOISE_DENSITY, MEAN_SPAN))


def span_lengths(
    inputs_length: int, density: float = NOISE_DENSITY, mean_span: float = MEAN_SPAN
) -> SpanLengths:
    """The row that fills inputs of a length once corrupted, end of sequence included.

    Raffel et al. 2020, section 3.1.4, with t5's rounding.
    """

    def corrupted(tokens: int) -> tuple[int, int, int]:
        noise = round(tokens * density)
        spans = round(noise / mean_span)
        return tokens - noise + spans + 1, noise + spans + 1, spans

    tokens = inputs_length - 1
    while corrupted(tokens + 1)[0] <= inputs_length:
        tokens += 1
    inputs, targets, spans = corrupted(tokens)
    if density == 0.5 and targets > inputs:  # t5 makes the two equal
        return SpanLengths(tokens - 1, corrupted(tokens - 1)[2], targets - 1)
    return SpanLengths(tokens, spans, targets)


def check_span_lengths(
    lengths: Mapping[str, int], density: float, mean_span: float, sentinels: int, vocabulary: str
) -> None:
    """Raises UserError where rows of these lengths cannot be corrupted.

    Args:
      sentinels: how many the vocabulary has.
      vocabulary: VOCABULARY as the user gave it.
    """
    inputs, targets = lengths["inputs"], lengths["targets"]
    given = f"TASK_FEATURE_LENGTHS={dict(lengths)}"
    needs = span_lengths(inputs, density, mean_span)
    if needs.spans < 1:
        sizes = range(inputs, 10_000)
        least = next(n for n in sizes if span_lengths(n, density, mean_span).spans)
        raise UserError(
            f"{given} makes rows so short that they hold no whole span: give at least {least} "
            "inputs."
        )
    if targets < needs.targets:
        raise UserError(
            f"{given} is too short, as corrupting {inputs} inputs makes {needs.targets} targets: "
            f"give at least {needs.targets} targets."
        )
    if needs.spans > sentinels:
        raise UserError(
            f"{given} is too long, as {inputs} inputs take {needs.spans} sentinels and "
            f"VOCABULARY={vocabulary!r} has {sentinels}: give fewer inputs, or a vocabulary with "
            "more sentinels."
        )
