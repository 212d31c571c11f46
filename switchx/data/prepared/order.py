"""Which record a run's n-th example is: a pure function of the seed and n, for any hosts.

Grain has both parts, a permutation by index and mixed datasets; tried (0.2.18, two cores) and not
taken. Its `index_shuffle` walks a cycle of at least 2^16 places: 2 us a row over 365 million
records where this takes 6, but 23 us over 1,000, 2 ms over 37 and 20 ms over 2, and mixtures have
small tasks. Its seeds have 32 bits, where an epoch of a task of a run needs its own. Its
`MapDataset.mix` took 52 us a row for two tasks against 18 here (107 tasks: 129 and 197).
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from switchx.data.prepared.counter_random import key_of, permute

_SLOTS = 2**18  # a mixture's rates are met exactly in every so many examples, to 1 in so many
_ORDER, _SLOT = 1, 2  # what a key is for


@dataclasses.dataclass(frozen=True)
class Places:
    """For each of R examples: the number of its task, the epoch over it, the record in it."""

    task_R: np.ndarray
    epoch_R: np.ndarray
    record_R: np.ndarray


class Order:
    """The order of a mixture: each task's records in an order of their own for each epoch.

    Tasks take turns by a fixed table, so the m-th example of a task stands at a place that is
    computed, not counted to.
    """

    def __init__(self, lengths: Sequence[int], rates: Sequence[float], seed: int | None) -> None:
        """lengths: records of each task; rates: how often they come, on any common scale; seed:
        None goes through each task from its start, to evaluate on."""
        self._length_T, self._seed = np.array(lengths), seed
        self._share_T = np.array([1]) if len(lengths) == 1 else shares(rates, _SLOTS)
        in_turn = np.repeat(np.arange(len(lengths)), self._share_T)
        slots = len(in_turn)
        self._task_S = in_turn[permute(np.arange(slots), slots, key_of(_SLOT, seed or 0))]
        self._rank_S = np.zeros(slots, np.int64)
        for task in range(len(lengths)):
            own_S = self._task_S == task
            self._rank_S[own_S] = np.arange(own_S.sum())

    def places(self, example_R: np.ndarray) -> Places:
        """Where to find these examples of the run, counted from 0."""
        turn_R, slot_R = np.divmod(example_R, len(self._task_S))
        task_R = self._task_S[slot_R]
        index_R = turn_R * self._share_T[task_R] + self._rank_S[slot_R]
        epoch_R, record_R = np.divmod(index_R, self._length_T[task_R])
        if self._seed is None:
            return Places(task_R, epoch_R, record_R)
        for task in np.unique(task_R):
            own_R = task_R == task
            key_R = key_of(_ORDER, self._seed, task, epoch_R[own_R])
            record_R[own_R] = permute(record_R[own_R], int(self._length_T[task]), key_R)
        return Places(task_R, epoch_R, record_R)

    def each_once(self, rows: int) -> Iterator[Places]:
        """All records once, so many at a time; without a seed.

        In the mixture's order up to where a task has no more, and then what is left of each task.
        """
        waiting_R2 = np.zeros((0, 2), np.int64)
        for chunk_R2 in self._chunks(rows):
            waiting_R2 = np.concatenate([waiting_R2, chunk_R2])
            if len(waiting_R2) >= rows:
                yield _in_first_epoch(waiting_R2[:rows])
                waiting_R2 = waiting_R2[rows:]
        if len(waiting_R2):
            yield _in_first_epoch(waiting_R2)

    def _chunks(self, rows: int) -> Iterator[np.ndarray]:
        """The same as pairs of a task and a record, at most so many at a time."""
        done_T = np.zeros_like(self._length_T)
        for first in itertools.count(0, rows):
            places = self.places(np.arange(first, first + rows))
            own_R = places.epoch_R == 0
            done_T += np.bincount(places.task_R[own_R], minlength=len(done_T))
            yield np.stack([places.task_R, places.record_R], axis=1)[own_R]
            if not own_R.all():
                break
        for task, length in enumerate(self._length_T):
            for first in range(done_T[task], length, rows):
                record_R = np.arange(first, min(first + rows, length))
                yield np.stack([np.full_like(record_R, task), record_R], axis=1)


def _in_first_epoch(pair_R2: np.ndarray) -> Places:
    return Places(pair_R2[:, 0], np.zeros(len(pair_R2), np.int64), pair_R2[:, 1])


def shares(rates: Sequence[float], total: int) -> np.ndarray:
    """`total` cut into whole numbers in proportion to rates, by largest remainders; none is 0."""
    exact_T = np.array(rates) / np.sum(rates) * (total - len(rates))
    share_T = np.floor(exact_T).astype(np.int64)
    left = total - len(rates) - share_T.sum()
    share_T[np.argsort(share_T - exact_T, kind="stable")[:left]] += 1
    return share_T + 1
