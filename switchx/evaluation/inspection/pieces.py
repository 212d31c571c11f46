"""The texts of tokens, each once, by numbers that a file can hold."""

import numpy as np

from switchx.data import Vocabulary
from switchx.evaluation.inspection.kinds import START, kind_of


class Pieces:
    """Gives each token that is asked for a number, in the order of asking.

    Attributes:
      texts: of the tokens, by number.
    """

    def __init__(self, vocabulary: Vocabulary):
        self._vocabulary, self._number_of = vocabulary, dict[int, int]()
        self.texts: list[str] = []

    def number(self, token: int) -> int:
        """The number of a token; id 0 is the decoder's start, since padding is never asked for."""
        found = self._number_of.setdefault(int(token), len(self.texts))
        if found == len(self.texts):
            self.texts.append(self._text(int(token)))
        return found

    def _text(self, token: int) -> str:
        return self._vocabulary.piece(token) if token else START

    def kinds_of(self, token_T: np.ndarray) -> np.ndarray:
        """int [T], numbers in `kinds.KINDS`."""
        tokens, index_T = np.unique(token_T, return_inverse=True)
        kinds = np.array([kind_of(self._text(int(token))) for token in tokens], int)
        return kinds[index_T] if len(kinds) else np.zeros(0, int)
