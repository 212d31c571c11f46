"""Random numbers by key and counter, against the published generator, closed forms and chance."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchx.data.prepared.counter_random import bits, key_of, permute

_MASK = 2**64 - 1


def splitmix64(seed: int, count: int) -> list[int]:
    """Vigna's splitmix64.c in Python's whole numbers."""
    numbers = []
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) & _MASK
        z = seed
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        numbers.append(z ^ (z >> 31))
    return numbers


@pytest.mark.parametrize("seed", [0, 1, 1234567, 2**64 - 1])
def test_the_generator_is_splitmix64(seed):
    assert bits(np.array([seed], np.uint64), 20)[0].tolist() == splitmix64(seed, 20)


def test_the_published_first_number():
    # Of seed 1234567, as the page of Rosetta Code on this generator lists it.
    assert bits(np.array([1234567], np.uint64), 1)[0, 0] == 6457827717110365317


def test_keys_differ_by_value_place_and_number_of_parts():
    keys = [key_of(*parts)[0] for parts in [(0,), (1,), (0, 0), (0, 1), (1, 0), (1, 1), (2**40, 3)]]
    assert len(set(keys)) == len(keys)
    many = key_of(5, np.arange(100_000))
    assert len(np.unique(many)) == len(many)
    assert key_of(5, 17)[0] == many[17]


@settings(deadline=None, derandomize=True)
@given(length=st.integers(1, 5000), seed=st.integers(0, 2**63))
def test_a_permutation_takes_each_place_once(length, seed):
    places = permute(np.arange(length), length, key_of(seed))
    assert sorted(places.tolist()) == list(range(length))


def test_a_permutation_of_more_than_fits_32_bits():
    length = 10**12 + 7
    index = np.random.default_rng(0).integers(0, length, 10_000)
    places = permute(index, length, key_of(3))
    assert places.min() >= 0
    assert places.max() < length
    assert len(np.unique(places)) == len(np.unique(index))


def test_every_order_of_four_is_as_likely():
    keys = key_of(11, np.arange(48_000))
    orders = np.stack([permute(np.full(len(keys), i), 4, keys) for i in range(4)], axis=1)
    counts = np.unique(orders @ [1000, 100, 10, 1], return_counts=True)[1]
    assert len(counts) == 24
    # Each is 2,000 give or take 44: five of that is far more than chance gives 24 of them.
    assert np.abs(counts - 2000).max() < 5 * 44


def test_where_the_first_goes_is_even_and_neighbours_part():
    places = permute(np.zeros(100_000, np.int64), 1000, key_of(1, np.arange(100_000)))
    counts = np.bincount(places, minlength=1000)
    chi2 = ((counts - 100.0) ** 2 / 100.0).sum()
    assert 999 - 5 * 45 < chi2 < 999 + 5 * 45  # mean 999, standard deviation sqrt(2 * 999)
    steps = np.diff(permute(np.arange(1000), 1000, key_of(2)))
    assert (steps == 1).mean() < 0.02
