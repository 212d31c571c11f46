"""Examples laid out for a person to read: a block for each part, its sentinels visible."""

import re
import textwrap
from collections.abc import Iterator

from switchx.data import Vocabulary
from switchx.data.examples import filled_in

_SENTINEL = re.compile(r"<extra_id_\d+>")


def example_lines(
    number: int,
    inputs: list[int],
    targets: list[int],
    answers: list[int] | None,
    vocabulary: Vocabulary,
    width: int = 96,
    coloured: bool = False,
) -> Iterator[str]:
    """The lines of an example: the text it was made of, where spans were cut, and its two sides.

    Args:
      answers: what a teacher finds likeliest at each target; None of no teacher.
      width: characters of a line.
      coloured: whether sentinels are shown in reverse, as a terminal can.
    """
    whole = filled_in(inputs, targets, vocabulary)
    parts = {"text": whole, "inputs": inputs, "targets": targets, "teacher's": answers}
    yield f"example {number}"
    for name, tokens in parts.items():
        if tokens is not None:
            yield f"  {name}, {len(tokens):,} tokens"
            for line in _wrapped(vocabulary.decode(tokens), width - 4):
                yield "    " + (_SENTINEL.sub("\x1b[7m\\g<0>\x1b[0m", line) if coloured else line)


def _wrapped(text: str, width: int) -> Iterator[str]:
    """A text in lines no longer than the width; its own line ends stay, what is no letter shows."""
    for line in text.split("\n"):
        shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
        yield from textwrap.wrap(shown, width, break_on_hyphens=False) or [""]
