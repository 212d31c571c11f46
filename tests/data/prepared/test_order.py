"""The order of examples: epochs, rates, and nothing that depends on how many are asked at once."""

import itertools

import numpy as np
import pytest

from switchx.data.prepared.order import Order, shares


def places(order, count):
    found = order.places(np.arange(count))
    return list(
        zip(found.task_R.tolist(), found.epoch_R.tolist(), found.record_R.tolist(), strict=True)
    )


def test_one_task_gives_each_record_once_an_epoch_in_a_new_order():
    found = places(Order([37], [1.0], seed=3), 3 * 37)
    orders = [[r for _, e, r in found if e == epoch] for epoch in range(3)]
    assert [e for _, e, _ in found] == [0] * 37 + [1] * 37 + [2] * 37
    assert all(sorted(order) == list(range(37)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_each_once_goes_by_the_mixture_then_through_what_is_left(rows):
    lengths = [5, 300, 40]
    order = Order(lengths, [1.0, 2.0, 1.0], None)
    parts = list(order.each_once(rows))
    assert {len(part.task_R) for part in parts[:-1]} <= {rows}
    found = [
        (task, record)
        for part in parts
        for task, record in zip(part.task_R.tolist(), part.record_R.tolist(), strict=True)
    ]
    assert sorted(found) == [(t, r) for t, length in enumerate(lengths) for r in range(length)]
    mixed = [(task, record) for task, epoch, record in places(order, 20) if epoch == 0]
    assert found[: len(mixed)] == mixed


def test_seeds_give_other_orders():
    assert places(Order([100], [1.0], 1), 100) != places(Order([100], [1.0], 2), 100)


@pytest.mark.parametrize("asked", [[0], [5, 17, 3], [10**9, 10**12 + 1]])
def test_an_examples_place_does_not_depend_on_what_else_is_asked(asked):
    order = Order([11, 1000, 7], [1, 5, 2.5], seed=0)
    together = order.places(np.array(asked))
    for row, example in enumerate(asked):
        alone = order.places(np.array([example]))
        for name in ("task_R", "epoch_R", "record_R"):
            assert getattr(alone, name)[0] == getattr(together, name)[row]


def test_a_mixture_keeps_its_rates_and_each_tasks_epochs():
    lengths, rates = [50, 3000, 10], [1.0, 8.0, 1.0]
    found = places(Order(lengths, rates, seed=5), 20_000)
    for task, (length, rate) in enumerate(zip(lengths, rates, strict=True)):
        own = [(e, r) for t, e, r in found if t == task]
        assert len(own) / len(found) == pytest.approx(rate / 10, rel=0.1)
        # In its own order a task is as if it were alone: whole epochs, one after the other.
        assert [e for e, _ in own] == [i // length for i in range(len(own))]
        for epoch in range(len(own) // length):
            assert sorted(r for e, r in own if e == epoch) == list(range(length))


def test_a_mixture_does_not_come_in_long_runs():
    tasks = [t for t, _, _ in places(Order([100, 100], [1, 1], 0), 10_000)]
    longest = max(len(list(run)) for _, run in itertools.groupby(tasks))
    assert longest < 30  # of 10,000 throws of a coin, about 13


def test_in_turn_goes_through_each_task_from_its_start():
    found = places(Order([5, 20], [1, 4], None), 25)
    for task, length in ((0, 5), (1, 20)):
        first = [r for t, e, r in found if t == task and e == 0]
        assert first == list(range(len(first)))
        assert len(first) <= length


def test_shares_are_exact():
    assert shares([1, 1, 2], 103).sum() == 103
    assert shares([1, 1e9], 1000).tolist() == [1, 999]  # none is left out
    rng = np.random.default_rng(0)
    rates = rng.random(107) ** 4
    share = shares(rates, 2**18)
    assert share.sum() == 2**18
    assert np.abs(share / 2**18 - rates / rates.sum()).max() < 107 / 2**18


@pytest.mark.parametrize("seed", [None, 4])
def test_tasks_that_join_late(seed):
    """Before its first example a task has none; behind it all go by their rates, epochs go on."""
    lengths, rates, firsts = [50, 20, 9], [2.0, 1.0, 1.0], [0, 700, 1500]
    order = Order(lengths, rates, seed, firsts)
    found = places(order, 6000)
    for begin, end, shares_there in (
        (0, 700, (1, 0, 0)),
        (700, 1500, (2 / 3, 1 / 3, 0)),
        (1500, 6000, (1 / 2, 1 / 4, 1 / 4)),
    ):
        tasks = [task for task, _, _ in found[begin:end]]
        for task, share in enumerate(shares_there):
            assert tasks.count(task) / len(tasks) == pytest.approx(share, abs=0.08 * (share % 1))
    for task, length in enumerate(lengths):
        own = [(e, r) for t, e, r in found if t == task]
        assert [e for e, _ in own] == [i // length for i in range(len(own))]
        assert sorted(r for e, r in own if e == 1) == list(range(length))
    asked = np.array([1499, 3, 701, 700, 5999, 699])
    some = order.places(asked)
    for row, example in enumerate(asked):
        assert (some.task_R[row], some.epoch_R[row], some.record_R[row]) == found[example]
    before = Order(lengths, rates, seed, [0, 700, 10**9])  # what is to come changes nothing
    assert places(before, 1500) == found[:1500]
