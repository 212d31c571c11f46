"""Contract "dispatch": tokens go to the slots of their assignment and back, with exact gradients.

That all dispatchers agree on whole layers, under every policy, is in test_routing_layer.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switchx.model.dispatch import DISPATCHERS
from switchx.model.routing import Assignment, Slots
from tests.model import routing_oracle as oracle

NAMES = ["einsum", "index"]
G, D = 2, 3
TOP_2 = oracle.Policy(top_k=2)
# (policy, tokens per group, experts, slots).
SHAPES = {
    "one choice": (oracle.Policy(), 12, 4, 3),
    "two choices": (TOP_2, 12, 4, 3),
    "more experts than tokens, one slot": (TOP_2, 6, 16, 1),
    "slots for all": (TOP_2, 6, 4, 6),
    "one expert": (oracle.Policy(), 12, 1, 4),
    "one token": (oracle.Policy(), 1, 2, 1),
    "experts choose": (oracle.Policy(experts_choose=True), 12, 4, 3),
}


def random_assignment(rng, policy, S, E, C):
    """Who is kept is the oracle's word; gates and slots are anything that an assignment may say."""
    routed = [
        oracle.route(rng.normal(size=(S, E)), rng.random(S) < 0.8, policy, C) for _ in range(G)
    ]
    expert_GSJ, kept_GSJ = (
        np.stack([getattr(one, name) for one in routed]) for name in ("expert_SJ", "kept_SJ")
    )
    slot_GSJ = rng.integers(0, 2 * C, kept_GSJ.shape)  # of no meaning where not kept
    for g in range(G):
        for e in range(E):
            there = kept_GSJ[g] & (expert_GSJ[g] == e)
            slot_GSJ[g][there] = rng.permutation(C)[: there.sum()]
    gate_GSJ = np.where(kept_GSJ, rng.normal(size=kept_GSJ.shape), 0.0)
    ints = (jnp.asarray(a, jnp.int32) for a in (expert_GSJ, slot_GSJ))
    return Assignment(*ints, jnp.asarray(gate_GSJ, jnp.float32), jnp.asarray(kept_GSJ))


def problem(seed, policy, S, E, C):
    """x_GSD, assignment, and by what each slot's expert multiplies, and weights of a loss."""
    rng = np.random.default_rng(seed)
    x_GSD, weight_GSD = rng.normal(size=(2, G, S, D)).astype(np.float32)
    scale_GECD = rng.normal(size=(G, E, C, D)).astype(np.float32)
    return x_GSD, random_assignment(rng, policy, S, E, C), scale_GECD, weight_GSD


def in_line(x_GECD, P):
    """[P, E, R, D]: of each expert a device's groups one after the other."""
    _, E, C, D = x_GECD.shape
    return x_GECD.reshape(P, G // P, E, C, D).swapaxes(1, 2).reshape(P, E, G // P * C, D)


def by_group(x_PERD):
    P, E, _, D = x_PERD.shape
    return x_PERD.reshape(P, E, G // P, -1, D).swapaxes(1, 2).reshape(G, E, -1, D)


def transport(name, x_GSD, assignment, scale_GECD, weight_GSD):
    """Dispatch, an expert that scales each slot by its own numbers, combine; and gradients."""
    slots = Slots((scale_GECD.shape[1:3],))
    P = 1 + scale_GECD.shape[2] % 2  # both groups on one device, or one on each

    def run(x_GSD, gate_GSJ, scale_GECD):
        gate_GSJ = jnp.where(assignment.kept_GSJ, gate_GSJ, 0.0)
        there = Assignment(
            assignment.expert_GSJ, assignment.slot_GSJ, gate_GSJ, assignment.kept_GSJ
        )
        (x_PERD,) = DISPATCHERS[name].dispatch(x_GSD, there, slots, P)
        out_PERD = x_PERD * in_line(scale_GECD, P)
        out_GSD = DISPATCHERS[name].combine([out_PERD], there, slots)
        return jnp.sum(out_GSD * weight_GSD), (by_group(x_PERD), out_GSD)

    arguments = (x_GSD, assignment.gate_GSJ, scale_GECD)
    grads, values = jax.grad(run, argnums=(0, 1, 2), has_aux=True)(*arguments)
    return *values, *grads


move = jax.jit(transport, static_argnums=0)


def by_hand(x_GSD, assignment, scale_GECD, weight_GSD):
    """out = gate * scale * x at each kept choice, and the loss sum(weight * out)."""
    a = jax.device_get(assignment)
    expert_in, out, dx = np.zeros(scale_GECD.shape), np.zeros(x_GSD.shape), np.zeros(x_GSD.shape)
    dgate, dscale = np.zeros(a.gate_GSJ.shape), np.zeros(scale_GECD.shape)
    for g, s, j in np.argwhere(a.kept_GSJ):
        at = g, a.expert_GSJ[g, s, j], a.slot_GSJ[g, s, j]
        x, gate, scale, weight = x_GSD[g, s], a.gate_GSJ[g, s, j], scale_GECD[at], weight_GSD[g, s]
        expert_in[at] = x
        out[g, s] += gate * scale * x
        dx[g, s] += gate * scale * weight
        dgate[g, s, j] = np.sum(scale * x * weight)
        dscale[at] = gate * x * weight
    return expert_in, out, dx, dgate, dscale


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES)
def test_tokens_go_where_the_assignment_sends_them_and_gradients_back(name, shape):
    for seed in range(10):
        inputs = problem(seed, *SHAPES[shape])
        (x_GECD, *found), (x, *expected) = move(name, *inputs), by_hand(*inputs)
        filled_GEC1 = np.any(x, axis=-1, keepdims=True)  # what lies in other slots is not said
        np.testing.assert_array_equal(np.where(filled_GEC1, x_GECD, 0), np.float32(x))
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_dropped_tokens_and_padding_come_back_as_zeros(name):
    x, assignment, scale, weight = problem(1, oracle.Policy(), 12, 4, 1)
    out = np.array(move(name, x, assignment, np.ones_like(scale), weight)[1])
    kept = np.array(assignment.kept_GSJ)[..., 0]
    assert 0 < kept.sum() < kept.size
    assert not np.any(out[~kept])
    assert np.all(np.any(out[kept], axis=-1))


@pytest.mark.parametrize("name", NAMES)
def test_tokens_are_moved_bit_by_bit_in_their_own_dtype(name):
    x, assignment, scale, weight = problem(2, TOP_2, 12, 4, 12)
    x = jnp.asarray(x, jnp.bfloat16)
    (x_PERD,) = DISPATCHERS[name].dispatch(x, assignment, Slots(((4, 12),)), 1)
    assert x_PERD.dtype == jnp.bfloat16
    expected = by_hand(np.array(x, np.float32), assignment, scale, weight)[0]
    found = np.array(by_group(x_PERD), np.float32)
    filled_GEC1 = np.any(expected, axis=-1, keepdims=True)
    np.testing.assert_array_equal(np.where(filled_GEC1, found, 0), expected)
