"""What an objective asks of a row's lengths: plain arithmetic, known before anything is loaded."""

import bisect
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from switchx.data.tasks import names
from switchx.errors import UserError

NOISE_DENSITY = 0.15
MEAN_SPAN = 3.0
CHUNK = 65_536  # of a longer document one part is drawn
DOCUMENTS_IN_A_ROW = 128  # are joined before they are cut
SHUFFLED_ROWS = 1_000  # rows of a batch are drawn from so many, on top of the order of the files


class Denoiser(NamedTuple):
    """How spans are cut out: the share of the tokens that goes, the tokens of a span on average,
    and the text that stands before the inputs to say which denoiser it is, '' for none."""

    density: float = NOISE_DENSITY
    mean_span: float = MEAN_SPAN
    mode: str = ""


# Tay et al. 2022, table 1: regular, sequential (one span, at a row's end) and extreme denoisers.
_UL2 = {
    "r3_15": Denoiser(0.15, 3.0, "[NLU]"),
    "r8_15": Denoiser(0.15, 8.0, "[NLU]"),
    "s_25": Denoiser(0.25, math.inf, "[S2S]"),
    "x3_50": Denoiser(0.5, 3.0, "[NLG]"),
    "x8_50": Denoiser(0.5, 8.0, "[NLG]"),
    "x64_15": Denoiser(0.15, 64.0, "[NLG]"),
    "x64_50": Denoiser(0.5, 64.0, "[NLG]"),
}
# A prefix language model: a row is 14 tokens that are given and one span of 110, in 16 + 112.
_OTHER = {names.PYTHON_CODE_PREFIX: Denoiser(0.884, 110.0)}


class SpanLengths(NamedTuple):
    """A full row of span corruption: tokens of text, spans cut out of it, tokens of targets."""

    tokens: int
    spans: int
    targets: int


def denoisers_of(name: str, inputs_length: int, modes: bool = False) -> list[Denoiser]:
    """How one of this package's tasks cuts spans out; of a mixture of denoisers, each of its tasks.

    Args:
      inputs_length: tokens in a row of inputs.
      modes: MODE_TOKENS.
    """
    if name in names.UL2_TASKS:
        tasks = names.UL2_TASKS[name]
        return [own for task in tasks for own in denoisers_of(task, inputs_length, modes)]
    if name not in names.DENOISER_OF:
        return [_OTHER.get(name, Denoiser())]
    density, mean_span, mode = _UL2[names.DENOISER_OF[name]]
    cut_out = inputs_length * density / (1 - density)  # of a full row: no span has more
    return [Denoiser(density, max(min(mean_span, cut_out), 1.0), mode if modes else "")]


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
    lengths: Mapping[str, int],
    denoisers: Sequence[tuple[Denoiser, int]],
    sentinels: int,
    vocabulary: str,
) -> None:
    """Raises UserError where one of some denoisers cannot corrupt rows of these lengths.

    Args:
      denoisers: each with the number of tokens of its mode.
      sentinels: how many the vocabulary has.
      vocabulary: VOCABULARY as the user gave it.
    """
    inputs, targets = lengths["inputs"], lengths["targets"]
    given = f"TASK_FEATURE_LENGTHS={dict(lengths)}"

    def needs(inputs: int) -> list[SpanLengths]:
        return [span_lengths(inputs - mode, own.density, own.mean_span) for own, mode in denoisers]

    def most_spans(inputs: int) -> int:
        return max(row.spans for row in needs(inputs))

    def most_targets(inputs: int) -> int:
        return max(row.targets for row in needs(inputs))

    if not all(row.spans for row in needs(inputs)):
        sizes = range(inputs, 10_000)
        least = next(n for n in sizes if all(row.spans for row in needs(n)))
        raise UserError(
            f"{given} makes rows so short that they hold no whole span: give at least {least} "
            "inputs."
        )
    if most_spans(inputs) > sentinels:
        fit = bisect.bisect_right(range(inputs), sentinels, key=most_spans) - 1
        raise UserError(
            f"{given} is too long, as {inputs} inputs take {most_spans(inputs)} sentinels and "
            f"VOCABULARY={vocabulary!r} has {sentinels}: give at most {fit} inputs, with "
            f"{most_targets(fit)} targets, or a vocabulary with more sentinels."
        )
    if targets < most_targets(inputs):
        needed = most_targets(inputs)
        raise UserError(
            f"{given} is too short, as corrupting {inputs} inputs makes {needed} targets: "
            f"give at least {needed} targets."
        )
