"""Slots of which few are filled: computing these alone is the same as computing all."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from switchx.model.dispatch import packed, packed_shares
from switchx.model.routing import Slots
from switchx.sharding import MeshConfig, make_mesh
from tests.helpers import grouping, noise, random_mask, switch_layer, tiny_config, with_switch
from tests.model.policies import POLICIES

B, L, S, D, F, E, ROOM = 4, 16, 8, 6, 5, 4, 2
CASES = {
    "switch": POLICIES["switch"],
    "two more rounds, by gate": POLICIES["two more rounds, by gate"],
    "experts choose": POLICIES["experts choose"],
    "two widths": dict(expert_widths=((3, 3), (1, 9)), top_k=2),
}


def gradients(name, dispatcher, most_filled, monkeypatch):
    """Output, statistics and gradients with dropout; whether anything ran in blocks of rows."""
    monkeypatch.setitem(packed._MOST_FILLED, "cpu", most_filled)
    config = with_switch(
        tiny_config(d_model=D, d_ff=F, activation="geglu", dropout_rate=0.3),
        **{"num_experts": E, "dispatcher": dispatcher, **CASES[name]},
    )
    graphdef, state = nnx.split(switch_layer(config, 3))
    rng = np.random.default_rng(0)
    x_BLD = rng.normal(size=(B, L, D)).astype(np.float32)
    mask_BL = random_mask(rng, B, L)
    groups = grouping(config, S, ROOM)

    def loss(state, x_BLD, keys):
        y_BLD, routed = nnx.merge(graphdef, state)(x_BLD, mask_BL, groups, keys)
        return jnp.sum(jnp.sin(y_BLD)) + routed.stats.balance_loss, (y_BLD, routed.stats)

    traced = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True)).trace(state, x_BLD, noise(B))
    found = jax.device_get(traced.lower().compile()(state, x_BLD, noise(B)))
    return found, "rows_by" in str(traced.jaxpr.pretty_print(name_stack=True))


@pytest.mark.parametrize("name", CASES)
def test_the_same_as_all_slots(name, monkeypatch):
    """Drops, dropout's numbers, every gradient."""
    (found, in_blocks) = gradients(name, "index", 100, monkeypatch)
    (expected, not_in_blocks) = gradients(name, "einsum", 0, monkeypatch)
    assert in_blocks
    assert not not_in_blocks
    assert expected[1][1].dropped_fraction > 0
    near = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(near, found, expected)


def test_what_is_worth_packing(monkeypatch):
    """With half of the last block, at most half of an expert's slots; of TPUs five sixths."""
    shares = functools.partial(packed_shares, in_stacks=False)
    released = Slots(((2048, 2),))
    assert shares(released, 456, 512) == [114]  # Switch-C's decoder, all on one device
    assert shares(released, 456, 16) == [None]  # 4 tokens in 32 slots: a block is as many
    assert shares(released, 2048, 512) == [None]  # its encoder: 512 in 1024
    assert shares(Slots(((4, 96), (4, 64))), 128, 64) == [1229, 820]  # of two widths
    assert shares(Slots(((4, 16),)), 4 * 64, 64) == [None]  # experts choose
    with jax.set_mesh(make_mesh(MeshConfig(2, 4, 1))):
        assert shares(released, 456, 512) == [57]
    monkeypatch.setattr(packed, "platform", lambda: "tpu")
    assert shares(released, 456, 512) == [None]  # its experts' matrices would be copied
    in_stacks = functools.partial(packed_shares, in_stacks=True)
    assert in_stacks(released, 456, 512) == [114]
    assert in_stacks(released, 2048, 512) == [512]
    assert in_stacks(Slots(((128, 10),)), 1024, 512) == [4096]  # of 5120, capacity_factor 1.25
    assert in_stacks(Slots(((128, 9),)), 1024, 512) == [None]  # of 4608
