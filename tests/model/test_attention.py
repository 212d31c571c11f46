"""Attention against plain NumPy; relative positions against whole-number arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from switchx.model import NO_NOISE
from switchx.model.attention import (
    Attention,
    RelativePositionBias,
    Visibility,
    relative_position_bucket,
)
from switchx.model.attention.bias import toeplitz
from tests.helpers import noise, tiny_config
from tests.model import oracle


def make(seed=0, **changes):
    return Attention(tiny_config(**changes), nnx.Rngs(params=seed))


def attend(attention, x, memory, bias_HW, visibility):
    keys_values = attention.keys_values(memory)
    return attention(attention.queries(x), *keys_values, bias_HW, visibility, NO_NOISE)


def kernels(attention):
    names = {"query": "query_DT", "key": "key_DT", "value": "value_DT", "out": "out_TD"}
    return {key: np.array(getattr(attention, name)[...], float) for key, name in names.items()}


def whole(bias_HW, L, M):
    return np.stack([bias_HW[:, L - 1 - l :][:, :M] for l in range(L)], axis=1)


@pytest.mark.parametrize(
    ("L", "M", "causal", "known"),
    [
        (5, 5, True, "both"),
        (3, 7, False, "keys"),
        (1, 4, False, "neither"),
        (4, 4, True, "queries"),
    ],
)
def test_attention_equals_the_oracle(L, M, causal, known):
    rng = np.random.default_rng(L)
    attention = make()
    x, memory = rng.normal(size=(2, L, 16)), rng.normal(size=(2, M, 16))
    bias_HW = rng.normal(size=(4, L + M - 1)).astype(np.float32)
    query_BL = rng.integers(1, 3, (2, L)) if known in ("queries", "both") else None
    key_BM = rng.integers(0, 3, (2, M)) if known in ("keys", "both") else None
    if key_BM is not None:
        key_BM[:, 0] = 1 if query_BL is None else query_BL[:, 0]

    @jax.jit
    def call(x, memory, bias_HW, query_BL, key_BM):
        return attend(attention, x, memory, bias_HW, Visibility(query_BL, key_BM, causal))

    floats = [jnp.asarray(a, jnp.float32) for a in (x, memory, bias_HW)]
    found = call(*floats, query_BL, key_BM)

    def seen(b, l, m):
        of_query = None if query_BL is None else query_BL[b, l]
        of_key = 1 if key_BM is None else key_BM[b, m]
        same = of_key > 0 if of_query is None else of_key == of_query and of_key > 0
        return same and not (causal and m > l)

    for b in range(2):
        visible = np.array([[seen(b, l, m) for m in range(M)] for l in range(L)])
        some = visible.any(axis=1)
        assert some.any()
        # What a query that sees nothing gets is not said.
        expected = oracle.attention(
            x[b], memory[b], kernels(attention), 4, whole(bias_HW, L, M), visible | ~some[:, None]
        )
        np.testing.assert_allclose(found[b][some], expected[some], rtol=1e-4, atol=1e-5)


def test_no_bias():
    rng = np.random.default_rng(0)
    attention = make()
    x = rng.normal(size=(2, 4, 16)).astype(np.float32)
    found = attend(attention, x, x, None, Visibility())
    for b in range(2):
        expected = oracle.attention(
            x[b].astype(float),
            x[b].astype(float),
            kernels(attention),
            4,
            np.zeros((4, 4, 4)),
            np.ones((4, 4), bool),
        )
        np.testing.assert_allclose(found[b], expected, rtol=1e-4, atol=1e-5)


def test_a_row_that_sees_nothing_is_finite():
    attention = make()
    x = jnp.ones((1, 3, 16))
    y = attend(attention, x, x, None, Visibility(key_BM=jnp.zeros((1, 3), int)))
    assert np.all(np.isfinite(y))


def test_the_gradient_of_the_bias_is_the_sum_over_rows_and_diagonals():
    rng = np.random.default_rng(1)
    attention = make()
    x = jnp.asarray(rng.normal(size=(3, 4, 16)), jnp.float32)
    bias_HW = jnp.asarray(rng.normal(size=(4, 7)), jnp.float32)

    def loss(bias_HW):
        return jnp.sum(jnp.sin(attend(attention, x, x, bias_HW, Visibility())))

    found = jax.jit(jax.grad(loss))(bias_HW)
    value = jax.jit(loss)
    for at in [(0, 0), (1, 3), (3, 5)]:
        difference = (value(bias_HW.at[at].add(1e-2)) - value(bias_HW.at[at].add(-1e-2))) / 2e-2
        np.testing.assert_allclose(found[at], difference, rtol=2e-2, atol=1e-3)


def test_dropout_falls_on_weights_along_the_length():
    """With one key its weight is 1, so an output is the value, doubled or gone, for all queries."""
    attention = make(dropout_rate=0.5)
    x = jax.random.normal(jax.random.key(0), (64, 3, 16))
    query = attention.queries(x)
    key, value = (array[:, :1] for array in attention.keys_values(x))
    attention.out_TD[...] = jnp.eye(16)
    visible = Visibility()
    calm = np.array(attention(query, key, value, None, visible, NO_NOISE)).reshape(64, 3, 4, 4)
    shaken = np.array(attention(query, key, value, None, visible, noise(64))).reshape(64, 3, 4, 4)
    ratio = (shaken / calm).mean(axis=-1)  # [B, L, H]
    assert set(np.unique(ratio.round(4))) == {0.0, 2.0}
    np.testing.assert_array_equal(ratio.round(4), ratio[:, :1].round(4).repeat(3, axis=1))
    assert 0.3 < (ratio[:, 0] > 0).mean() < 0.7


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "furthest"), [(32, 128), (32, 64), (16, 100), (8, 20)])
def test_buckets_equal_the_oracle(bidirectional, buckets, furthest):
    distance = np.arange(-300, 301)
    found = relative_position_bucket(distance, bidirectional, buckets, furthest)
    expected = [oracle.bucket(int(d), bidirectional, buckets, furthest) for d in distance]
    np.testing.assert_array_equal(found, expected)


def test_known_buckets_of_t5():
    encoder = {0: 0, -1: 1, -7: 7, -8: 8, -11: 8, -12: 9, -16: 10, -32: 12, -64: 14, -128: 15}
    encoder |= {1: 17, 7: 23, 8: 24, 16: 26, 64: 30, 91: 31, 1000: 31, -1000: 15}
    decoder = {0: 0, -1: 1, -15: 15, -16: 16, -32: 21, -64: 26, -127: 31, -128: 31, -999: 31}
    decoder |= {1: 0, 50: 0}
    for bidirectional, known in ((True, encoder), (False, decoder)):
        distance = np.array(list(known))
        found = relative_position_bucket(distance, bidirectional, 32, 128)
        np.testing.assert_array_equal(found, list(known.values()))


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("L", "M"), [(6, 6), (1, 1), (1, 9), (9, 1), (4, 7), (7, 4)])
def test_bias_equals_direct_indexing(bidirectional, L, M):
    bias = RelativePositionBias(tiny_config(), bidirectional, nnx.Rngs(params=0))
    table = np.array(bias.table_HR[...])
    found = whole(jax.jit(lambda: bias(L, M))(), L, M)
    for l, m in np.ndindex(L, M):
        bucket = oracle.bucket(m - l, bidirectional, 32, 128)
        np.testing.assert_array_equal(found[:, l, m], table[:, bucket])


def test_gradient_of_the_table_counts_its_uses():
    graphdef, state = nnx.split(RelativePositionBias(tiny_config(), True, nnx.Rngs(params=0)))
    weights = np.random.default_rng(0).normal(size=(4, 5, 7)).astype(np.float32)

    def value(state):
        return jnp.sum(toeplitz(nnx.merge(graphdef, state)(5, 7), 5, 7) * weights)

    found = jax.grad(value)(state)
    expected = np.zeros((4, 32))
    for l, m in np.ndindex(5, 7):
        expected[:, oracle.bucket(m - l, True, 32, 128)] += weights[:, l, m]
    np.testing.assert_allclose(found["table_HR"][...], expected, rtol=1e-5, atol=1e-6)
