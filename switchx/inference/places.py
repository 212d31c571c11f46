"""The places of a batch: a row that has its answer leaves, and one that waits takes its place."""

import collections
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from switchx.inference.batches import Rows, in_batches, padded, put, whole
from switchx.inference.search import (
    Answering,
    Method,
    begin,
    best,
    go_on,
    nothing_written,
    replace_rows,
    resized,
)
from switchx.model import Encoded, Model, Params, Written
from switchx.sharding import batch_shards

# Rooms for tokens, each with a program of its own: short answers should not pay for long ones.
_FIRST_ROOM, _LARGER = 32, 4
# The share of the places that must be free before the others are interrupted to fill them.
_FREE = 1 / 8


class Given(NamedTuple):
    """Rows to be answered, and what the method needs of each.

    Attributes:
      of_rows: from the numbers of a batch's rows, int [B], to what Method.begin takes.
    """

    rows: Rows
    of_rows: Any


class Places:
    """B places, b of them on each of S devices or groups of them, for inputs of one length.

    A row stays on one device, so a free place is for those that wait there.
    """

    def __init__(self, model: Model, params: Params, method: Method, given: Given, batch_size: int):
        self._model, self._params, self._method, self._given = model, params, method, given
        self._S = batch_shards(jax.sharding.get_mesh())
        self._b = batch_size // self._S
        self._at_once = max(1, int(self._b * _FREE))
        self._row_B = np.full(batch_size, -1)  # the row in each place, -1 where there is none
        self._now: Any = None  # the batch: (Answering, Encoded)
        self._fresh: Any = None  # such a one, of which rows wait
        self._waiting: list[collections.deque[tuple[int, int]]] = []
        self._written: Written | None = None

    def answers(self, numbers: list[int], M: int) -> Iterator[tuple[int, list[int]]]:
        """Numbers of rows, as they end, and their answers."""
        chunks = list(in_batches(numbers, len(self._row_B)))[::-1]
        self._now = self._fresh = None
        self._waiting = [collections.deque() for _ in range(self._S)]
        while chunks or any(self._waiting) or (self._row_B >= 0).any():
            self._fill(chunks, M)
            self._go_on(more=bool(chunks) or any(self._waiting))
            yield from self._ended()

    def _fill(self, chunks: list[Sequence[int]], M: int) -> None:
        """Puts rows that wait into free places, reading more inputs where none wait."""
        while (self._row_B < 0).any():
            if not any(self._waiting):
                if not chunks:
                    return
                self._fresh, row_B = self._read(chunks.pop(), M)
                if self._now is None or (self._row_B < 0).all():
                    self._now, self._row_B = self._fresh, row_B
                    return
                for place in np.flatnonzero(row_B >= 0).tolist():
                    self._waiting[place // self._b].append((place % self._b, int(row_B[place])))
            if not self._fill_some():
                return

    def _fill_some(self) -> bool:
        """Fills as many places of each device as are filled at once; False where none could be."""
        shape = (self._S, self._at_once)
        place_SR, source_SR = np.full(shape, self._b, np.int32), np.zeros(shape, np.int32)
        row_Sb, moved = self._row_B.reshape(self._S, self._b), False
        for device, waiting in enumerate(self._waiting):
            free = np.flatnonzero(row_Sb[device] < 0)
            for i, place in enumerate(free[: min(self._at_once, len(waiting))].tolist()):
                source_SR[device, i], row_Sb[device, place] = waiting.popleft()
                place_SR[device, i], moved = place, True
        if moved:
            self._now = replace_rows(*self._now, self._fresh, place_SR, source_SR)
        return moved

    def _read(self, numbers: Sequence[int], M: int) -> tuple[tuple[Answering, Encoded], np.ndarray]:
        """A batch of inputs, shared out evenly over the devices; the row in each place."""
        row_bS = np.full((self._b, self._S), -1)
        row_bS.reshape(-1)[: len(numbers)] = numbers
        row_B = row_bS.T.reshape(-1)
        rows = [self._given.rows[number] if number >= 0 else [] for number in map(int, row_B)]
        token_BM = put(padded(rows, len(rows), M))
        given = jax.tree.map(lambda x: put(np.asarray(x)), self._given.of_rows(row_B))
        config, method = self._model.config, self._method
        return begin(config, method, self._params, token_BM, given), row_B

    def _go_on(self, more: bool) -> None:
        answering, encoded = self._now
        config, method, params = self._model.config, self._method, self._params
        position_B, going_B = whole(answering.position_B), whole(answering.going_B)
        room = _room(max(position_B[going_B], default=0), method.length)
        if self._written is None:
            self._written = nothing_written(config, method, params, encoded, room)
        elif self._written.room != room:
            self._written = resized(self._written, room)
        free = self._at_once * self._S
        until = max(0, going_B.sum() - free) if more else 0
        answering, self._written = go_on(
            config, method, params, answering, encoded, self._written, np.int32(until)
        )
        self._now = answering, encoded

    def _ended(self) -> Iterator[tuple[int, list[int]]]:
        answering, _ = self._now
        ended_B = (self._row_B >= 0) & ~whole(answering.going_B)
        if not ended_B.any():
            return
        token_BL = whole(best(self._method, answering))
        for place in np.flatnonzero(ended_B).tolist():
            yield int(self._row_B[place]), [token for token in token_BL[place].tolist() if token]
            self._row_B[place] = -1


def _room(position: int, length: int) -> int:
    """The least room that holds a token at this position; twice the last is too near to it."""
    room = _FIRST_ROOM
    while room <= position:
        room *= _LARGER
    return length if 2 * room > length else room
