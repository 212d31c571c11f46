"""Text with blanks to encoder tokens, and the model's answer back into the text.

A blank is a sentinel of T5's span corruption, <extra_id_0>, or a run of two or more underscores
that stands by itself: that of `__init__` does not.
"""

import dataclasses
import itertools
import re

from switchx.data import Vocabulary
from switchx.errors import UserError

_SENTINEL = re.compile(r"<extra_id_(\d+)>")
_UNDERSCORES = re.compile(r"(?<!\w)__+(?!\w)")


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a model made of a text.

    Attributes:
      output: the decoded answer as it came, sentinels included.
      blanks: what it put into each blank, in the order of the text; "" where it gave nothing.
      filled: the text with its blanks replaced by that.
    """

    output: str
    blanks: list[str]
    filled: str


def to_tokens(text: str, vocabulary: Vocabulary) -> list[int]:
    """Encoder tokens of a text with blanks, the end of sequence appended as in pretraining.

    Raises:
      UserError: the text has both kinds of blanks, or more than the vocabulary has sentinels.
    """
    numbered = number_blanks(text)
    for number in {int(number) for number in _SENTINEL.findall(numbered)}:
        name = f"<extra_id_{number}>"
        if vocabulary.decode([vocabulary.sentinel_id(number)]).strip() != name:
            raise UserError(f"the blank {name} is not in the vocabulary: use lower numbers.")
    return [*vocabulary.encode_blanks(numbered), vocabulary.eos_id]


def answer(text: str, tokens: list[int], vocabulary: Vocabulary) -> Answer:
    """Puts the tokens a model gave for `text` into its blanks."""
    output = vocabulary.decode(tokens)
    given = spans(output)
    blanks: list[str] = []

    def fill(match: re.Match[str]) -> str:
        blanks.append(given.get(int(match[1]), ""))
        return blanks[-1]

    filled = _SENTINEL.sub(fill, number_blanks(text))
    return Answer(output, blanks, filled)


def number_blanks(text: str) -> str:
    """The text with runs of underscores as <extra_id_0>, <extra_id_1>, ... in order."""
    if _SENTINEL.search(text) and _UNDERSCORES.search(text):
        raise UserError("the text has blanks of both kinds, <extra_id_0> and __: use one.")
    count = itertools.count()
    return _UNDERSCORES.sub(lambda _: f"<extra_id_{next(count)}>", text)


def spans(output: str) -> dict[int, str]:
    """What stands behind each sentinel, up to the next; of one that repeats, the first."""
    _, *parts = _SENTINEL.split(output)
    given: dict[int, str] = {}
    for number, span in zip(parts[::2], parts[1::2], strict=True):
        given.setdefault(int(number), span.strip())
    return given
