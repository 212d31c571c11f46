"""The order of documents and of rows, as seqio's pipeline of tf.data has them."""

from collections.abc import Sequence

import numpy as np

from switchx.data.embedded import draws

_BLOCK = 16  # documents of a file in a row, before the next file has its turn
_AT_ONCE = 4096  # random numbers


def document_order(documents: np.ndarray, seed: int | None, epoch: int) -> np.ndarray:
    """The numbers of documents, int64 [D]: of shuffled files some in turn.

    Args:
      documents: how many each file has; they are numbered file by file.
      seed: None leaves the files as they stand.
      epoch: how many times all were read before.
    """
    files = len(documents)
    order = np.arange(files)
    if seed is not None:
        order = np.array(_drained(list(order), draws.shuffling(order, seed, epoch)))
    begins = np.concatenate([[0], np.cumsum(documents)])
    rounds = -(-max(documents) // _BLOCK)
    return np.concatenate(
        [
            np.arange(
                begins[file] + i * _BLOCK, min(begins[file] + (i + 1) * _BLOCK, begins[file + 1])
            )
            for i in range(rounds)
            for file in order
        ]
    )


def _drained(slots: list[int], drawn: np.ndarray) -> list[int]:
    """All that is in a buffer, in the order in which it is drawn."""
    given, there = [], len(drawn)
    for first in range(there):
        chosen = first + int(drawn[first]) % (there - first)
        given.append(slots[chosen])
        slots[chosen] = slots[first]
    return given


class Shuffled:
    """The numbers 0, 1, 2, ... drawn from a buffer: each given one makes room for the next.

    Attributes:
      given: how many were.
      slots: what the buffer holds.
    """

    def __init__(self, seed: int, room: int, given: int = 0, slots: Sequence[int] = ()) -> None:
        self._seed, self.given, self.slots = seed, given, list(slots or range(room))
        self._drawn, self._first = np.zeros(0, np.uint64), given

    def take(self, count: int) -> np.ndarray:
        """The next so many, int64 [count]."""
        return np.array([self._next() for _ in range(count)])

    def behind(self, count: int) -> "Shuffled":
        """Another, which stands where this one will once it has given so many."""
        other = Shuffled(self._seed, len(self.slots), self.given, self.slots)
        other.take(count)
        return other

    def _next(self) -> int:
        if self.given >= self._first + len(self._drawn):
            self._first = self.given
            numbers = np.arange(self._first, self._first + _AT_ONCE)
            self._drawn = draws.shuffling(numbers, self._seed, 0)
        room = len(self.slots)
        draw = int(self._drawn[self.given - self._first])
        oldest, chosen = self.given % room, (self.given + draw % room) % room
        found, self.slots[chosen] = self.slots[chosen], self.slots[oldest]
        self.slots[oldest] = self.given + room
        self.given += 1
        return found
