"""Experts in attention on eight devices: the same numbers, and only the collectives they need."""

import functools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding

from switchx.model.expert_attention import ExpertAttention
from switchx.sharding import MeshConfig, batch_sharding, make_mesh, spec
from tests.helpers import grouping, noise, random_mask, tiny_config, with_switch
from tests.sharding.test_dispatchers import collectives

# 16 groups of 16 tokens: two for each device. 8 experts, widths that no other dimension has.
B, L, D, H, K, E, C = 16, 16, 24, 4, 5, 8, 3
MESHES = [(1, 8, 1), (2, 2, 2)]
CASES = [("index", mesh) for mesh in MESHES] + [("einsum", MESHES[1]), ("ragged", MESHES[1])]


def inputs():
    rng = np.random.default_rng(0)
    x_BLD = rng.normal(size=(B, L, D)).astype(np.float32)
    return jnp.asarray(x_BLD), jnp.asarray(random_mask(rng, B, L)), noise(B)


@functools.cache
def layer(dispatcher):
    config = with_switch(
        tiny_config(d_model=D, d_kv=K), num_experts=E, dispatcher=dispatcher, experts_in="attention"
    )
    return config, *nnx.split(ExpertAttention(config, config.switch, nnx.Rngs(params=0)))


def forward(dispatcher, capacity):
    """(parameters, x, mask, noise) to queries, keys and statistics, as in training."""
    config, graphdef, _ = layer(dispatcher)
    groups = grouping(config, 16, capacity, causal=True)

    def run(state, x_BLD, mask_BL, keys):
        attention = nnx.merge(graphdef, state)
        query, key, _, (routed,) = attention.of_itself(x_BLD, mask_BL, groups, keys)
        return query, key, routed.stats

    return run


def backward(dispatcher, capacity):
    """The same to a loss of all three, themselves, and the loss's gradients by parameters and x."""

    def loss(*arguments):
        query, key, stats = forward(dispatcher, capacity)(*arguments)
        total = jnp.sum(jnp.sin(query) * jnp.cos(key)) + stats.balance_loss + stats.z_loss
        return total, (query, key, stats)

    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)


def capacity_of(dispatcher):
    return None if dispatcher == "ragged" else C


@functools.cache
def on_mesh(make, dispatcher, sizes):
    """The compiled function on a mesh of these sizes, and what it returns."""
    *_, state = layer(dispatcher)
    mesh = make_mesh(MeshConfig(*sizes))
    shardings = jax.tree.map(
        lambda param: NamedSharding(mesh, spec(*param.axes)),
        state,
        is_leaf=lambda leaf: isinstance(leaf, nnx.Variable),
    )
    batch = batch_sharding(mesh)
    placed = (shardings, batch, batch, batch)
    with jax.set_mesh(mesh):
        sharded = jax.jit(make(dispatcher, capacity_of(dispatcher)), in_shardings=placed)
        arguments = jax.device_put((state, *inputs()), placed)
        compiled = sharded.lower(*arguments).compile()
        return compiled, compiled(*arguments)


@functools.cache
def on_one_device(capacity):
    return jax.jit(backward("einsum", C if capacity else E * B * L))(layer("einsum")[2], *inputs())


@pytest.mark.parametrize(("dispatcher", "sizes"), CASES)
def test_the_same_as_on_one_device(dispatcher, sizes):
    _, found = on_mesh(backward, dispatcher, sizes)
    expected = on_one_device(capacity_of(dispatcher))
    found, expected = map(jax.tree.leaves, (found, expected))
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("make", "exchanges", "dispatcher", "sizes"),
    [(backward, 2, *case) for case in CASES[:-1]] + [(forward, 1, *CASES[1])],
)
def test_one_exchange_there_and_one_back(make, exchanges, dispatcher, sizes):
    """Queries and keys travel together, and of their heads each device just those it holds."""
    found = list(collectives(on_mesh(make, dispatcher, sizes)[0]))
    moved = [sum(map(np.prod, shapes)) for kind, _, shapes in found if kind == "all-to-all"]
    there = 16 * E * C * D // np.prod(sizes[:2])
    back = 16 * E * C * 2 * H * K // np.prod(sizes)
    assert Counter(moved) == {there: exchanges, back: exchanges}
    # Otherwise: keys of the noise, a number per row, and sums; no tokens, no weights.
    for kind, _, shapes in found:
        if kind in ("all-gather", "collective-permute"):
            assert all(len(shape) == 1 and shape[0] <= B for shape in shapes), (kind, shapes)
    assert not any(kind == "reduce-scatter" for kind, *_ in found)
