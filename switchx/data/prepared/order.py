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


class _Turns:
    """How tasks take turns at given rates: a table of slots, over and over."""

    def __init__(self, rate_T: np.ndarray, key: np.ndarray) -> None:
        """rate_T: 0 of a task that does not take part; key: which order of the slots."""
        takes_part_T = rate_T > 0
        count = int(takes_part_T.sum())
        self._share_T = np.zeros(len(rate_T), np.int64)
        self._share_T[takes_part_T] = 1 if count == 1 else shares(rate_T[takes_part_T], _SLOTS)
        in_turn = np.repeat(np.arange(len(rate_T)), self._share_T)
        slots = len(in_turn)
        self._task_S = in_turn[permute(np.arange(slots), slots, key)]
        by_task_S = np.argsort(self._task_S, kind="stable")
        begin_T = np.cumsum(self._share_T) - self._share_T
        self._rank_S = np.zeros(slots, np.int64)
        self._rank_S[by_task_S] = np.arange(slots) - np.repeat(begin_T, self._share_T)

    def of(self, turn_R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whose these turns are, counted from 0, and how many that task had before each."""
        round_R, slot_R = np.divmod(turn_R, len(self._task_S))
        task_R = self._task_S[slot_R]
        return task_R, round_R * self._share_T[task_R] + self._rank_S[slot_R]

    def given(self, turns: int) -> np.ndarray:
        """How many of the first so many turns each task has."""
        rounds, rest = divmod(turns, len(self._task_S))
        counts_T = np.bincount(self._task_S[:rest], minlength=len(self._share_T))
        return rounds * self._share_T + counts_T


class Order:
    """The order of a mixture: each task's records in an order of their own for each epoch.

    Tasks take turns by a fixed table, so the m-th example of a task stands at a place that is
    computed, not counted to. Where tasks join late there is a table from each joining on.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        rates: Sequence[float],
        seed: int | None,
        firsts: Sequence[int] | None = None,
    ) -> None:
        """lengths: records of each task; rates: how often they come, on any common scale; seed:
        None goes through each task from its start, to evaluate on; firsts: the example of the run
        before which none of a task comes, None is 0 for all."""
        self._length_T, self._seed = np.array(lengths), seed
        first_T = np.zeros(len(lengths), np.int64) if firsts is None else np.array(firsts)
        self._first_P = np.unique(np.append(first_T, 0))
        self._turns: list[_Turns] = []
        self._before_PT = np.zeros((len(self._first_P), len(lengths)), np.int64)
        for phase, first in enumerate(self._first_P):
            rate_T = np.where(first_T <= first, rates, 0.0)
            self._turns.append(_Turns(rate_T, key_of(_SLOT, seed or 0, *[phase] * (phase > 0))))
            if phase:
                given_T = self._turns[phase - 1].given(int(first - self._first_P[phase - 1]))
                self._before_PT[phase] = self._before_PT[phase - 1] + given_T

    def places(self, example_R: np.ndarray) -> Places:
        """Where to find these examples of the run, counted from 0."""
        task_R, index_R = self._tasks(example_R)
        epoch_R, record_R = np.divmod(index_R, self._length_T[task_R])
        if self._seed is None:
            return Places(task_R, epoch_R, record_R)
        for task in np.unique(task_R):
            own_R = task_R == task
            key_R = key_of(_ORDER, self._seed, task, epoch_R[own_R])
            record_R[own_R] = permute(record_R[own_R], int(self._length_T[task]), key_R)
        return Places(task_R, epoch_R, record_R)

    def _tasks(self, example_R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whose these examples are, and how many of that task come before each."""
        task_R, index_R = np.zeros((2, len(example_R)), np.int64)
        phase_R = np.searchsorted(self._first_P, example_R, side="right") - 1
        for phase in np.unique(phase_R):
            own_R = phase_R == phase
            found_R, rank_R = self._turns[phase].of(example_R[own_R] - self._first_P[phase])
            task_R[own_R] = found_R
            index_R[own_R] = self._before_PT[phase][found_R] + rank_R
        return task_R, index_R

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


def shares(rates: Sequence[float] | np.ndarray, total: int) -> np.ndarray:
    """`total` cut into whole numbers in proportion to rates, by largest remainders; none is 0."""
    exact_T = np.array(rates) / np.sum(rates) * (total - len(rates))
    share_T = np.floor(exact_T).astype(np.int64)
    left = total - len(rates) - share_T.sum()
    share_T[np.argsort(share_T - exact_T, kind="stable")[:left]] += 1
    return share_T + 1
