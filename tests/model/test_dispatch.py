"""Contract "dispatch": every dispatcher gives the same outputs, gradients and drops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switchx.model.dispatch import DISPATCHERS, dispatcher
from switchx.model.routing import route
from tests.helpers import jit, switch_config
from tests.model import oracle

NAMES = sorted(DISPATCHERS)


def assign(logits, mask, top_k, capacity):
    config = switch_config(num_experts=logits.shape[-1], top_k=top_k)
    return route(config, logits, mask, capacity, True, None)[0]


def problem(seed, G=2, S=12, E=4, D=3, top_k=1, room=2):
    """x_GSD, probabilities, mask, and what the tests pass as the experts' outputs' weights."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(G, S, D)).astype(np.float32)
    logits = rng.normal(size=(G, S, E)).astype(np.float32)
    mask = rng.random((G, S)) < 0.8
    scale = rng.normal(size=(G, E, room, D)).astype(np.float32)
    return x, logits, jnp.asarray(mask), scale


def transport(name, x, logits, mask, scale, top_k):
    """Dispatch, an expert that scales each slot by its own number, combine."""
    E, C = scale.shape[1:3]
    assignment = assign(logits, mask, top_k, C)
    expert_in = DISPATCHERS[name].dispatch(x, assignment, E, C)
    return expert_in, DISPATCHERS[name].combine(expert_in * scale, assignment)


move = jit(transport, static_argnums=(0, 5))


def by_hand(x, logits, mask, scale, top_k):
    G, S, D = x.shape
    E, C = scale.shape[1:3]
    expert_in, out = np.zeros((G, E, C, D)), np.zeros((G, S, D))
    probs = np.array(jax.nn.softmax(jnp.asarray(logits)))
    for g in range(G):
        routed = oracle.route(probs[g], np.array(mask[g]), top_k, C)
        for s, j in np.argwhere(routed.slot_SJ >= 0):
            e, c = routed.expert_SJ[s, j], routed.slot_SJ[s, j]
            expert_in[g, e, c] = x[g, s]
            out[g, s] += routed.gate_SJ[s, j] * scale[g, e, c] * x[g, s]
    return expert_in, out


# (tokens per group, experts, choices, slots): one expert, more experts than tokens, one slot.
SHAPES = [(12, 4, 1, 3), (12, 4, 2, 3), (6, 16, 2, 1), (12, 1, 1, 4), (1, 2, 1, 1)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("S", "E", "top_k", "room"), SHAPES)
def test_tokens_go_where_the_oracle_sends_them(name, S, E, top_k, room):
    for seed in range(15):
        x, logits, mask, scale = problem(seed, S=S, E=E, room=room)
        found = move(name, x, logits, mask, scale, top_k)
        for value, expected in zip(found, by_hand(x, logits, mask, scale, top_k), strict=True):
            np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)


@functools.partial(jit, static_argnums=(0, 5))
def gradients(name, x, logits, mask, scale, top_k):
    weights = np.random.default_rng(9).normal(size=x.shape).astype(np.float32)

    def loss(x, logits, scale):
        return jnp.sum(transport(name, x, logits, mask, scale, top_k)[1] * weights)

    return jax.grad(loss, argnums=(0, 1, 2))(x, logits, scale)


@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize("room", [1, 3, 12])
def test_gradients_are_the_same(top_k, room):
    """Of tokens, router logits and expert outputs, where nothing is dropped and where much is."""
    for seed in range(3):
        inputs = problem(seed, room=room)
        expected = gradients("einsum", *inputs, top_k)
        for name in NAMES:
            for a, b in zip(gradients(name, *inputs, top_k), expected, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("top_k", [1, 2])
def test_gradients_are_those_of_finite_differences(name, top_k):
    """Differences of the float64 oracle, so that a fault common to all dispatchers shows."""
    x, logits, mask, scale = problem(5, G=1, S=5, E=3, D=2, room=2)
    weights = np.random.default_rng(9).normal(size=x.shape)
    inputs = [x, logits, scale]
    for index, found in enumerate(gradients(name, x, logits, mask, scale, top_k)):
        for at in np.ndindex(*inputs[index].shape):
            ends = []
            for step in (1e-3, -1e-3):
                moved = [array.astype(np.float64) for array in inputs]
                moved[index][at] += step
                ends.append(np.sum(_exact(*moved[:2], mask, moved[2], top_k) * weights))
            np.testing.assert_allclose(found[at], (ends[0] - ends[1]) / 2e-3, rtol=1e-3, atol=1e-4)


def _exact(x, logits, mask, scale, top_k):
    """`by_hand` with float64 probabilities, which a difference needs."""
    out = np.zeros(x.shape)
    for g in range(len(x)):
        probs = np.stack([oracle.softmax(row) for row in logits[g]])
        routed = oracle.route(probs, np.array(mask[g]), top_k, scale.shape[2])
        for s, j in np.argwhere(routed.slot_SJ >= 0):
            e, c = routed.expert_SJ[s, j], routed.slot_SJ[s, j]
            out[g, s] += routed.gate_SJ[s, j] * scale[g, e, c] * x[g, s]
    return out


@pytest.mark.parametrize("name", NAMES)
def test_dropped_tokens_and_padding_come_back_as_zeros(name):
    x, logits, mask, scale = problem(1, room=1)
    mask = mask.at[0].set(False)
    kept = assign(logits, mask, 1, 1).kept_GSJ[..., 0]
    out = move(name, x, logits, mask, np.ones_like(scale), 1)[1]
    assert not np.any(np.array(out)[~np.array(kept)])
    assert np.all(np.any(np.array(out)[np.array(kept)], axis=-1))
    assert not np.any(out[0])


@pytest.mark.parametrize("name", NAMES)
def test_tokens_are_moved_bit_by_bit_in_their_own_dtype(name):
    x, logits, mask, scale = problem(2, room=12)
    x = jnp.asarray(x, jnp.bfloat16)
    assignment = assign(logits, mask, 1, 12)
    expert_in = DISPATCHERS[name].dispatch(x, assignment, 4, 12)
    assert expert_in.dtype == jnp.bfloat16
    expected = by_hand(np.array(x, np.float32), logits, mask, scale, 1)[0]
    np.testing.assert_array_equal(np.array(expert_in, np.float32), expected)


def test_auto_is_one_of_them():
    assert dispatcher("auto") in DISPATCHERS.values()
