"""Batches filled up as flaxformer does it, against loops over its tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switchx.errors import UserError
from switchx.model import NO_NOISE
from switchx.model.flaxformer_groups import FlaxformerGroups
from switchx.model.switch_layer import Grouping
from switchx.sharding import make_mesh
from switchx.training.checks import check_run
from tests.helpers import switch_config, switch_layer, tiny_config
from tests.training.helpers import TWO_KINDS, run_config


@pytest.mark.parametrize(
    ("batch", "largest", "expected"),
    [
        ((4, 32, 6), 4096, (4, 33, 22)),  # 128 tokens and 4 are 6 groups of 22
        ((3, 7, 4), 8, (3, 8, 6)),
        ((5, 8, 6), 4096, (6, 8, 8)),  # a sequence of 8 is less than 2 more in each of 5
        ((4, 32, 4), 16, (4, 32, 16)),
        ((4, 32, 4), 4096, (4, 32, 32)),  # as many groups as experts
    ],
)
def test_sizes(batch, largest, expected):
    found = FlaxformerGroups.of(*batch, largest)
    assert (found.rows, found.length, found.size) == expected


def by_loops(layer, x_BLD, mask_BL, cut, capacity):
    """Outputs and the share that found its expert full, in float64 and one token at a time."""
    B, L, D = x_BLD.shape
    kernel_DE = np.asarray(layer.router.kernel_DE[...], np.float64)
    wi_EDF, wo_EFD = (
        np.asarray(w[...], np.float64) for w in (layer.experts.wi_EDF, layer.experts.wo_EFD)
    )
    filled = np.zeros((cut.rows, cut.length, D))
    filled[:B, :L] = x_BLD * mask_BL[..., None]
    out_TD, dropped = np.zeros((cut.rows * cut.length, D)), 0
    for t, x_D in enumerate(filled.reshape(-1, D)):
        if t % cut.size == 0:
            taken = dict.fromkeys(range(kernel_DE.shape[1]), 0)
        odds = np.exp(x_D @ kernel_DE)
        expert = int(np.argmax(odds))
        taken[expert] += 1
        if taken[expert] > capacity:
            dropped += 1
        else:
            gate = odds[expert] / odds.sum()
            out_TD[t] = gate * (np.maximum(x_D @ wi_EDF[expert], 0) @ wo_EFD[expert])
    return out_TD.reshape(filled.shape)[:B, :L], dropped / len(out_TD)


def test_padding_takes_the_slots_of_the_first_expert():
    """128 tokens and six experts: capacity 3.67 of 22 tokens is rounded up to 4."""
    switch = switch_config(num_experts=6, group_padding="flaxformer", encoder_group_size=4096)
    config = tiny_config(switch=switch)
    layer = switch_layer(config, 0)
    rng = np.random.default_rng(1)
    x_BLD = rng.normal(size=(4, 32, 16)).astype(np.float32)
    mask_BL = np.arange(32) < np.array([32, 20, 32, 9])[:, None]
    grouping = Grouping.of(switch, causal=False, train=False)
    found, routed = jax.jit(lambda x: layer(x, mask_BL, grouping, NO_NOISE))(jnp.asarray(x_BLD))
    cut = FlaxformerGroups(4, 33, 22)
    expected, dropped = by_loops(layer, x_BLD, mask_BL, cut, capacity=round(2.0 * 22 / 6))
    assert dropped > 0.1
    assert float(routed.stats.dropped_fraction) == pytest.approx(dropped, abs=1e-6)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(microbatches=2), r"MICROBATCHES=2 does not go with SwitchConfig\.group_padding="),
        ({}, r"group_padding='flaxformer' makes 18 groups of 16 sequences of 16 in the encoder"),
    ],
)
def test_what_its_groups_do_not_go_with(changes, says):
    switch = switch_config(num_experts=6, group_padding="flaxformer")
    run = run_config(**{**TWO_KINDS, "switch": switch}, **changes)
    with pytest.raises(UserError, match=says):
        check_run(run, make_mesh(run.mesh))
