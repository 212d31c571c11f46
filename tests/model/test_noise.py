"""Noise is random, and a function of (seed, step, row, site, element) alone."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switchx.model.noise import NO_NOISE, Noise, dropout
from tests.helpers import noise

ROWS, SHAPE = 16, (64, 128)
SIZE = ROWS * SHAPE[0] * SHAPE[1]


def unit(keys, shape=SHAPE):
    return np.array(keys.uniform(shape, 0.0, 1.0), np.float64)


def uncorrelated(a, b):
    """Five standard deviations of the correlation of independent samples."""
    r = np.corrcoef(a.ravel(), b.ravel())[0, 1]
    return abs(r) < 5 / np.sqrt(a.size)


@pytest.mark.parametrize("seed", [0, 1, 2**40 + 3])
def test_uniform(seed):
    """Moments, and a chi-square over 256 bins of the top and of the bottom bits."""
    keys = noise(ROWS, seed=seed, step=7)
    x = unit(keys)
    assert x.min() >= 0
    assert x.max() < 1
    assert abs(x.mean() - 0.5) < 5 / np.sqrt(12 * SIZE)
    assert abs(x.var() - 1 / 12) < 5 / np.sqrt(180 * SIZE)
    bits = np.array(keys.bits(SHAPE))
    for byte in (bits >> 24, bits & 255):
        counts = np.bincount(byte.ravel(), minlength=256)
        chi2 = ((counts - SIZE / 256) ** 2 / (SIZE / 256)).sum()
        assert abs(chi2 - 255) < 5 * np.sqrt(2 * 255)


def test_neighbours_are_uncorrelated():
    x = unit(noise(ROWS))
    for axis in range(3):
        near = [slice(None)] * 3
        far = [slice(None)] * 3
        near[axis], far[axis] = slice(1, None), slice(None, -1)
        assert uncorrelated(x[tuple(near)], x[tuple(far)]), axis


def test_every_bit_of_a_number_is_independent_of_the_others():
    bits = np.array(noise(ROWS).bits(SHAPE)).ravel()
    planes = np.stack([(bits >> b) & 1 for b in range(32)]).astype(np.float64)
    r = np.corrcoef(planes) - np.eye(32)
    assert np.abs(r).max() < 5.5 / np.sqrt(SIZE)


def test_rows_sites_steps_and_seeds_are_independent():
    keys = noise(ROWS)
    different = {
        "here": keys,
        "site 0": keys.fold(0),
        "site 1": keys.fold(1),
        "sites 0, 1": keys.fold(0).fold(1),
        "sites 1, 0": keys.fold(1).fold(0),
        "next step": noise(ROWS, step=1),
        "next seed": noise(ROWS, seed=1),
        "other rows": noise(ROWS, first_row=ROWS),
    }
    drawn = {name: unit(other) for name, other in different.items()}
    for (a, x), (b, y) in itertools.combinations(drawn.items(), 2):
        assert uncorrelated(x, y), (a, b)
    rows = drawn["here"].reshape(ROWS, -1)
    assert np.abs(np.corrcoef(rows) - np.eye(ROWS)).max() < 5 / np.sqrt(rows.shape[1])


def test_all_64_bits_of_a_key_count():
    """Keys whose low halves are near would else give the same numbers, shifted."""
    low, high = jnp.full(ROWS, 1000, jnp.uint32), jnp.arange(ROWS, dtype=jnp.uint32)
    x, y = (unit(Noise(*key)).reshape(ROWS, -1) for key in ((low, high), (low + 5, high + 99)))
    assert uncorrelated(x[:, 5:], y[:, :-5])
    assert uncorrelated(x[1:], x[:-1])


def test_keys_do_not_collide():
    """All of 64 steps x 64 rows x 8 sites have keys of their own."""
    found = set()
    for step in range(64):
        keys = noise(64, step=step)
        for site in range(8):
            low_B, high_B = keys.fold(site).key()
            found |= set(zip(low_B.tolist(), high_B.tolist(), strict=True))
    assert len(found) == 64 * 64 * 8


def test_batch_split_changes_nothing():
    whole = unit(noise(8), (5, 3))
    halves = [unit(noise(4, first_row=first), (5, 3)) for first in (0, 4)]
    np.testing.assert_array_equal(whole, np.concatenate(halves))


# Groups smaller than a row, of a row, of several rows, and straddling rows.
@pytest.mark.parametrize(("tokens", "group"), [(12, 3), (12, 12), (12, 24), (12, 16)])
def test_groups_have_the_same_keys_whatever_the_microbatch(tokens, group):
    def keys(rows, first_row):
        regrouped = noise(rows, first_row=first_row).fold(3).regroup(rows * tokens // group, tokens)
        return np.array(regrouped.key())

    whole = keys(8, 0)
    np.testing.assert_array_equal(whole, np.concatenate([keys(4, 0), keys(4, 4)], axis=1))
    assert len(set(zip(*whole.tolist(), strict=True))) == 8 * tokens // group


def test_uniform_range():
    x = np.array(noise(ROWS).uniform(SHAPE, 0.99, 1.01))
    assert x.dtype == np.float32
    assert x.min() >= np.float32(0.99)
    assert x.max() <= np.float32(1.01)
    assert abs(x.mean() - 1) < 5 * 0.01 / np.sqrt(3 * SIZE)


@pytest.mark.parametrize("rate", [0.1, 0.5])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_dropout_keeps_the_mean(rate, dtype):
    x = dropout(jnp.ones((ROWS, *SHAPE), dtype), rate, noise(ROWS))
    assert x.dtype == dtype
    values = np.array(x, np.float64)
    kept = values > 0
    assert abs(kept.mean() - (1 - rate)) < 5 * np.sqrt(rate * (1 - rate) / SIZE)
    scale = float(jnp.asarray(1 / (1 - rate), dtype))
    np.testing.assert_allclose(values[kept], scale)


def test_dropout_shares_decisions_along_an_axis():
    x = np.array(dropout(jnp.ones((4, 6, 50)), 0.5, noise(4), shared_axis=1))
    np.testing.assert_array_equal(x, np.broadcast_to(x[:, :1], x.shape))
    assert len({row.tobytes() for row in x[:, 0]}) == 4


def test_no_noise_no_dropout():
    x = jnp.arange(6.0).reshape(2, 3)
    assert dropout(x, 0.5, NO_NOISE.fold(3)) is x
    assert dropout(x, 0.0, noise(2)) is x


def test_a_site_known_while_tracing_is_as_good_as_any():
    """Static sites, array sites and per-row sites all lead to keys of their own."""
    keys = noise(4)
    sites = [
        keys.fold(1),
        keys.fold(jnp.uint32(1)),
        keys.fold(10 + jnp.arange(4)),
        keys.fold(1).fold(0),
    ]
    found = {key for site in sites for key in zip(*np.array(site.key()).tolist(), strict=True)}
    assert len(found) == 4 * len(sites)


def test_a_traced_step_gives_the_same_numbers():
    rows = jnp.arange(3)
    traced = jax.jit(lambda step: Noise.for_rows(5, step, rows).bits((4,)))(jnp.uint32(9))
    np.testing.assert_array_equal(traced, Noise.for_rows(5, jnp.uint32(9), rows).bits((4,)))
