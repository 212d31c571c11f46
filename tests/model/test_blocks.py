"""ST-MoE's blocks: where the experts are, and the dense feed-forward that follows them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from switchx.model import NO_NOISE, Model
from switchx.model.blocks import FeedForwardSublayer
from tests.helpers import grouping, switch_config, tiny_config
from tests.model import oracle

EXTRA = tiny_config(activation="geglu", switch=switch_config(extra_dense=True))


def rms_norm(x_D, scale_D):
    return x_D / np.sqrt(np.mean(x_D**2) + 1e-6) * scale_D


def test_the_extra_feed_forward_is_a_residual_step_after_the_experts_with_their_norm():
    sublayer = FeedForwardSublayer(EXTRA, EXTRA.switch, nnx.Rngs(params=0))
    rng = np.random.default_rng(0)
    scale_D = rng.uniform(0.5, 2.0, 16)
    sublayer.norm.scale_D[...] = jnp.asarray(scale_D, jnp.float32)
    x, mask = rng.normal(size=(2, 8, 16)), jnp.ones((2, 8), bool)
    groups = grouping(EXTRA, 8, 4)

    found, *_ = jax.jit(lambda x: sublayer(x, mask, groups, NO_NOISE))(jnp.asarray(x, jnp.float32))
    normed = np.apply_along_axis(rms_norm, -1, x, scale_D)
    routed, _ = jax.jit(lambda x: sublayer.switch(x, mask, groups, NO_NOISE))(
        jnp.asarray(normed, jnp.float32)
    )
    between = x + np.array(routed, np.float64)
    dense = [np.array(getattr(sublayer.dense, name)[...], np.float64) for name in KERNELS]
    for b in range(2):
        for s in range(8):
            h_D = rms_norm(between[b, s], scale_D)
            expected = between[b, s] + oracle.feed_forward(h_D, *dense)
            np.testing.assert_allclose(found[b, s], expected, rtol=1e-4, atol=1e-5)


KERNELS = ("wi_DF", "wo_FD", "gate_DF")


@pytest.mark.parametrize(
    ("experts_in", "extra", "attention", "feed_forward"),
    [
        ("feed_forward", True, False, {"norm", "switch", "dense"}),
        ("attention", False, True, {"norm", "dense"}),
        ("both", False, True, {"norm", "switch"}),
    ],
)
def test_every_fourth_layer_has_experts(experts_in, extra, attention, feed_forward):
    """Layers 3, 7, 11, ...: flaxformer's `layer % n == n - 1`."""
    switch = switch_config(every=4, experts_in=experts_in, extra_dense=extra)
    shapes = Model.of(tiny_config(num_layers=8, switch=switch)).shapes
    for stack in ("encoder", "decoder"):
        block = shapes[stack]["blocks"]
        assert {leaf.shape[0] for leaf in jax.tree.leaves(block)} == {2}  # two blocks of four
        for i in range(4):
            layer = block[f"layer_{i}"]
            assert ("switch" in layer["attention"]) == (attention and i == 3)
            expected = feed_forward if i == 3 else {"norm", "dense"}
            assert set(layer["feed_forward"]) == expected
