"""Rows by their numbers: documents in their order, joined, cut into rows, and corrupted."""

import bisect
import functools
from collections.abc import Callable

import numpy as np

from switchx.data.batches import Batch
from switchx.data.embedded import draws
from switchx.data.embedded.tokens import Documents
from switchx.data.prepared.rows import empty_batch
from switchx.data.prepared.spans import SpanCorruption
from switchx.data.tasks.objectives import CHUNK, DOCUMENTS_IN_A_ROW

_KEPT = 8  # joined documents: a row may wait long in the shuffle's buffer


class Rows:
    """The rows of a split before they are shuffled, each from its number.

    Args:
      order: the numbers of an epoch's documents.
      epochs: how many there are; None for no end.
      length: tokens of text in a row.
      lengths: of the model's features, ends of sequence included.
    """

    def __init__(
        self,
        documents: Documents,
        order: Callable[[int], np.ndarray],
        epochs: int | None,
        seed: int,
        corruption: SpanCorruption,
        length: int,
        lengths: dict[str, int],
        eos_id: int,
    ) -> None:
        self._documents, self._order, self._epochs, self._seed = documents, order, epochs, seed
        self._corruption, self._length = corruption, length
        self._lengths, self._eos = lengths, eos_id
        self._numbers: list[int] = []  # of the documents of the epochs so far, in their order
        self._epoch = 0
        self._begins = [0]  # first row of each join, and of the one behind the last that is known
        self._join = functools.lru_cache(_KEPT)(self._joined)

    def __len__(self) -> int:
        """How many there are, where there is an end."""
        while self._measure_next():
            pass
        return self._begins[-1]

    def batch(self, row_R: np.ndarray) -> Batch:
        """Rows as the model gets them; of those behind the end nothing but zeros."""
        batch = empty_batch(self._lengths, len(row_R), pack=False)
        tokens = [self._tokens(int(row)) for row in row_R]
        length_R = np.array(list(map(len, tokens)))
        for length in np.unique(length_R[length_R > 0]):
            own = np.flatnonzero(length_R == length)
            token_RN = np.stack([tokens[i] for i in own])
            cut_RN = self._cut(row_R[own], int(length))
            inputs_RI = self._ended(self._corruption.without(token_RN, cut_RN), "inputs")
            targets_RT = self._ended(self._corruption.without(token_RN, ~cut_RN), "targets")
            _put(batch, own, inputs_RI, targets_RT)
        return batch

    def _ended(self, token_RN: np.ndarray, feature: str) -> np.ndarray:
        kept_RN = token_RN[:, : self._lengths[feature] - 1]
        return np.pad(kept_RN, ((0, 0), (0, 1)), constant_values=self._eos)

    def _cut(self, row_R: np.ndarray, length: int) -> np.ndarray:
        """bool [R, length]: what is taken out of rows."""
        seed_R62 = draws.split(self._seeds(row_R, 4), 6)
        room = max(length, 2)  # so that there is one of each
        taken, spans = self._corruption.counts(room)
        kept_RS = _parts(seed_R62[:, 1], room - taken, spans)
        taken_RS = _parts(seed_R62[:, 0], taken, spans)
        return self._corruption.spans_of(kept_RS, taken_RS)[:, :length]

    def _seeds(self, number_R: np.ndarray, first: int) -> np.ndarray:
        """What seqio gives the elements of these numbers, uint64 [R, 2]: a step takes two seeds."""
        seeds = [draws.numbered(number_R, self._seed + first + i) for i in range(2)]
        return np.stack(seeds, axis=1)

    def _tokens(self, row: int) -> np.ndarray:
        while row >= self._begins[-1] and self._measure_next():
            pass
        join = bisect.bisect_right(self._begins, row) - 1
        if join == len(self._begins) - 1:
            return np.zeros(0, np.int32)
        begin = (row - self._begins[join]) * self._length
        return self._join(join)[begin : begin + self._length]

    def _measure_next(self) -> bool:
        """Finds out how many rows the next join has; False where there is none."""
        join = len(self._begins) - 1
        tokens = len(self._join(join))
        self._begins.append(self._begins[-1] + -(-tokens // self._length))
        if not tokens:
            self._begins.pop()
        return tokens > 0

    def _joined(self, join: int) -> np.ndarray:
        """The tokens of so many documents, each cut to a part where it is very long."""
        number_D = np.arange(join * DOCUMENTS_IN_A_ROW, (join + 1) * DOCUMENTS_IN_A_ROW)
        while number_D[-1] >= len(self._numbers) and self._epoch != self._epochs:
            self._numbers += self._order(self._epoch).tolist()
            self._epoch += 1
        number_D = number_D[number_D < len(self._numbers)]
        tokens = [self._documents[self._numbers[number]] for number in number_D]
        drawn_D = draws.words(draws.split(self._seeds(number_D, 0), 2)[:, 1], 1)[:, 0]
        parts = []
        for document, drawn in zip(tokens, drawn_D.tolist(), strict=True):
            begin = CHUNK * (drawn % -(-len(document) // CHUNK))
            parts.append(document[begin : begin + CHUNK])
        return np.concatenate([np.zeros(0, np.uint16), *parts]).astype(np.int32)


def _parts(seed_R2: np.ndarray, items: int, parts: int) -> np.ndarray:
    """int64 [R, parts]: `items` cut into as many parts, none empty.

    seqio sorts random numbers, one for each place; the first of them are the cuts, at their ranks.
    """
    order_RC = np.argsort(draws.fractions(seed_R2, items - 1), axis=1, kind="stable")
    rank_RC = np.argsort(order_RC, axis=1)
    cut_RC = np.sort(rank_RC[:, : parts - 1], axis=1) + 1
    return np.diff(cut_RC, axis=1, prepend=0, append=items)


def _put(batch: Batch, rows: np.ndarray, inputs_RI: np.ndarray, targets_RT: np.ndarray) -> None:
    I, T = inputs_RI.shape[1], targets_RT.shape[1]
    batch["encoder_input_tokens"][rows, :I] = inputs_RI
    batch["decoder_target_tokens"][rows, :T] = targets_RT
    shifted = batch["decoder_target_tokens"][rows, :-1]  # seqio leaves the end of sequence in it
    batch["decoder_input_tokens"][rows, 1:] = shifted
    batch["decoder_loss_weights"][rows, :T] = 1
