"""The blanks of held-out text, as a trained model fills them, beside the truth."""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Iterator

from switchx.data.examples import examples_of
from switchx.inference.blanks import Vocabulary, spans
from switchx.training.batches import HostBatch

# Greedy answers to rows of encoder tokens, in their order.
Answers = Callable[[list[list[int]]], Iterable[list[int]]]

_SENTINEL = re.compile(r"\s*<extra_id_(\d+)>\s*")
_AROUND = 36  # characters of text shown on each side of a blank


@dataclasses.dataclass(frozen=True)
class Blank:
    """One blank: the text around it, what the model put there, what stood there."""

    before: str
    given: str
    truth: str
    after: str

    @property
    def is_exact(self) -> bool:
        """Whether the model put there what stood there, spaces at the ends aside."""
        return self.given == self.truth


def fill(
    batches: Iterable[HostBatch], vocabulary: Vocabulary, answers: Answers, rows: int
) -> list[list[Blank]]:
    """The blanks of so many examples, in their order.

    They are spread evenly over the batches: neighbours are often of one document.
    """
    examples = (example for batch in batches for example in examples_of(batch))
    every = [pair for pair in examples if pair[0]]
    rows = min(rows, len(every))
    pairs = [every[row * len(every) // rows] for row in range(rows)]
    given = answers([inputs for inputs, _ in pairs])
    return [
        list(_blanks(vocabulary, inputs, answer, targets))
        for (inputs, targets), answer in zip(pairs, given, strict=True)
    ]


def nats_to_bits_per_byte(batches: Iterable[HostBatch], vocabulary: Vocabulary) -> float | None:
    """What turns nats per target token into bits per byte of the text in the targets.

    Sentinels and ends of sequence cost the model something and are no text. None where the
    targets hold none.
    """
    tokens = size = 0
    for batch in batches:
        for _, targets in examples_of(batch):
            tokens += len(targets)
            size += len(_SENTINEL.sub("", vocabulary.decode(targets)).encode())
    return tokens / size / math.log(2) if size else None


def _blanks(
    vocabulary: Vocabulary, inputs: list[int], answer: list[int], targets: list[int]
) -> Iterator[Blank]:
    text = vocabulary.decode(inputs)
    given, truth = (spans(vocabulary.decode(tokens)) for tokens in (answer, targets))
    for match in _SENTINEL.finditer(text):
        number = int(match[1])
        if number in truth:
            before = _plain(text[: match.start()])[-_AROUND:]
            after = _plain(text[match.end() :])[:_AROUND]
            yield Blank(before, given.get(number, ""), truth[number], after)


def _plain(text: str) -> str:
    """One line, other blanks as dots."""
    return " ".join(_SENTINEL.sub(" … ", text).split())
