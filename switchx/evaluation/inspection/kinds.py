"""What kind of token a piece of text is, in words that need no vocabulary to be known."""

import re

START = "<start>"  # what the decoder reads first; elsewhere its id is padding
KINDS = (
    "blanks",
    "the start and the end",
    "spaces",
    "numbers",
    "signs",
    "beginnings of words",
    "insides of words",
)
_SENTINEL = re.compile(r"<extra_id_\d+>")


def kind_of(piece: str) -> int:
    """The number in KINDS of a piece, as `Vocabulary.piece` gives it."""
    if _SENTINEL.fullmatch(piece):
        return KINDS.index("blanks")
    if piece in (START, "</s>", "<pad>"):
        return KINDS.index("the start and the end")
    if not piece.strip():
        return KINDS.index("spaces")
    if any(map(str.isalpha, piece)):
        return KINDS.index("beginnings of words" if piece[0].isspace() else "insides of words")
    return KINDS.index("numbers" if any(map(str.isnumeric, piece)) else "signs")
