"""Experts of several widths: where all are equal nothing differs, whatever the dispatcher.

Their layers are held to the oracle in test_routing_layer.py, and on meshes in
tests/sharding/test_dispatchers.py.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from switchx.model.router import expert_capacity
from switchx.model.routing.capacity import room
from tests.helpers import (
    grouping,
    noise,
    random_mask,
    switch_config,
    switch_layer,
    tiny_config,
    with_switch,
)
from tests.model import routing_oracle as oracle

B, L, D, F, E = 4, 8, 6, 10, 4


def of_one_width(state):
    """The parameters of a layer with all experts in one array."""
    leaves = nnx.to_flat_state(state["experts"])
    names = sorted({path[-1] for path, _ in leaves})
    kernels = {
        name: jnp.concatenate([p[...] for path, p in sorted(leaves) if path[-1] == name])
        for name in names
    }
    return {"router": state["router"]["kernel_DE"][...], **kernels}


def run(config, dispatcher, arrays):
    """Output, statistics and gradients of a layer with these parameters, those in one array."""
    rng = np.random.default_rng(0)
    x_BLD = rng.normal(size=(B, L, D)).astype(np.float32)
    mask_BL = random_mask(rng, B, L)
    config = with_switch(config, dispatcher=dispatcher)
    groups = grouping(config, 8, None if dispatcher == "ragged" else 2)
    layer = switch_layer(config, 0)
    graphdef, state = nnx.split(layer)
    ends = np.cumsum([number for number, _ in config.expert_widths])[:-1]

    def whole(arrays):
        arrays = dict(arrays)
        flat = [(("router", "kernel_DE"), arrays.pop("router"))]
        for name, array in arrays.items():
            parts = jnp.split(array, ends)
            several = len(parts) > 1
            flat += [
                (("experts", *([f"width_{i}"] if several else []), name), part)
                for i, part in enumerate(parts)
            ]
        values = dict(flat)
        return nnx.from_flat_state(
            [(path, param.replace(values[path])) for path, param in nnx.to_flat_state(state)]
        )

    @jax.jit
    def both(arrays, x_BLD, keys):
        def loss(arrays, x_BLD):
            y_BLD, routed = nnx.merge(graphdef, whole(arrays))(x_BLD, mask_BL, groups, keys)
            stats = routed.stats
            return jnp.sum(jnp.sin(y_BLD)) + stats.balance_loss, (y_BLD, stats)

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(arrays, x_BLD)

    return both(arrays, x_BLD, noise(B))


@pytest.mark.parametrize("dispatcher", ["einsum", "index", "ragged"])
def test_equal_widths_are_bitwise_one(dispatcher):
    one = tiny_config(d_model=D, d_ff=F, activation="geglu")
    two = with_switch(one, expert_widths=((2, F), (2, F)))
    arrays = of_one_width(nnx.state(switch_layer(two, 1)))
    (expected_grads, expected), (grads, found) = (run(c, dispatcher, arrays) for c in (one, two))
    assert dispatcher == "ragged" or expected[1].dropped_fraction > 0
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    # The rows of an expert are added up in an order that XLA chooses for each shape.
    near = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(near, grads, expected_grads)


@pytest.mark.parametrize("tokens", [8, 100, 4096])
def test_capacity_by_cost_equals_the_oracle(tokens):
    widths = ((5, 128), (2, 512), (1, 4096))
    config = switch_config(num_experts=8, expert_widths=widths, balance_by="cost", min_capacity=2)
    cost_E = [width for number, width in widths for _ in range(number)]
    for train, factor in ((True, 1.25), (False, 2.0)):
        expected = oracle.capacities_by_cost(factor, tokens, cost_E, 2)
        found = expert_capacity(config, tokens, train)
        np.testing.assert_array_equal(np.broadcast_to(room(found, np.arange(8)), 8), expected)
    by_tokens = dataclasses.replace(config, balance_by="tokens")
    assert expert_capacity(by_tokens, tokens, True) == oracle.capacity(1.25, tokens, 8, 2)


def test_loads_by_which_the_cost_is_shared_alike_change_nothing():
    """The loss by cost is least, and flat, where each expert does as many multiplications."""
    widths = ((1, 10), (3, 40))
    config = switch_config(expert_widths=widths, balance_by="cost")
    share_E = np.array([float(s) for number, s in config.token_shares for _ in range(number)])
    assert share_E @ np.ones(4) == pytest.approx(1)
    work_E = share_E * config.balance_weights
    np.testing.assert_allclose(work_E, work_E.mean())
