"""Clipping by unit against optax's, applied to each matrix of each layer and expert alone."""

import jax
import numpy as np
import optax
import pytest

from switchx.errors import UserError
from switchx.model import Model
from switchx.training.adapting import named
from switchx.training.config import OptimizerConfig
from switchx.training.optimizers import make_optimizer
from switchx.training.unit_clipping import clip_by_unit
from tests.training.helpers import run_config

SHARE = 0.05
SPARSE = run_config().model.switch
# Shapes and axes as models have them, and how many leading dimensions count matrices.
PARAMS = {
    "table": ((7, 5), ("vocab", "embed"), 0),
    "biases": ((2, 4, 6), ("layers", "heads", "buckets"), 1),
    "scale": ((5,), ("embed",), 0),
    "scales": ((2, 5), ("layers", "embed"), 1),
    "attention": ((2, 4, 5), ("layers", "heads", "embed"), 1),
    "experts": ((2, 3, 5, 6), ("layers", "expert", "embed", "mlp"), 2),
}
ROWS = ("table", "biases")  # whose units are vectors and not columns


def random_like(shapes, seed, scale):
    """Units of many sizes, so that some are clipped and some are not."""
    rng = np.random.default_rng(seed)

    def of(leaf):
        size = np.exp(2 * rng.normal(size=leaf.shape))
        return (scale * size * rng.normal(size=leaf.shape)).astype(np.float32)

    return jax.tree.map(of, shapes)


def test_each_matrix_is_clipped_as_if_it_were_alone():
    shapes = {name: jax.ShapeDtypeStruct(of[0], np.float32) for name, of in PARAMS.items()}
    params, grads = random_like(shapes, 1, 1.0), random_like(shapes, 2, 0.05)
    axes = {name: of[1] for name, of in PARAMS.items()}
    clipped, _ = jax.jit(clip_by_unit(SHARE, axes).update)(grads, optax.EmptyState(), params)
    for name, (shape, _, leading) in PARAMS.items():
        # optax takes a matrix to be [in, out]; a table is turned for it.
        turned = (lambda x: x.T) if name in ROWS else (lambda x: x)
        tx = optax.adaptive_grad_clip(SHARE)
        for place in np.ndindex(*shape[:leading]):
            gradient, param = turned(grads[name][place]), turned(params[name][place])
            wanted, _ = tx.update(gradient, tx.init(param), param)
            np.testing.assert_allclose(turned(clipped[name][place]), wanted, rtol=1e-6)
    same = {name for name in PARAMS if np.array_equal(clipped[name], grads[name])}
    assert same <= {"scale"}
    assert (np.asarray(clipped["experts"]) == grads["experts"]).mean() > 0.1
    # optax's own guess of the axes adds up over experts.
    guessed = optax.adaptive_grad_clip(SHARE)
    wrong, _ = guessed.update(grads["experts"][0], optax.EmptyState(), params["experts"][0])
    assert not np.allclose(wrong, clipped["experts"][0], rtol=1e-3)


def test_it_comes_before_the_global_norm_and_sees_nothing_frozen():
    small = dict(switch=SPARSE, d_model=16, d_ff=24, num_heads=2)
    model = Model.of(run_config(**small).model)
    config = OptimizerConfig(
        name="adamw", clip_by_unit=SHARE, clip_global_norm=0.5, frozen=("experts",)
    )
    params, grads = random_like(model.shapes, 1, 1.0), random_like(model.shapes, 2, 0.05)
    kept = lambda tree: {n: x for n, x in named(tree).items() if "/experts/" not in n}  # noqa: E731
    tx = make_optimizer(config, optax.constant_schedule(1e-3), model.axes)

    def without(tree):
        return {
            key: without(node) if isinstance(node, dict) else node
            for key, node in tree.items()
            if key != "experts"
        }

    updates, _ = jax.jit(tx.update)(without(grads), tx.init(params), params)
    clip = jax.jit(clip_by_unit(SHARE, model.axes).update)
    clipped, _ = clip(grads, optax.EmptyState(), params)
    scale = 0.5 / np.sqrt(sum(np.sum(np.square(x)) for x in kept(clipped).values()))
    assert scale < 1
    adam = optax.adamw(1e-3, b1=config.beta1, b2=config.beta2, weight_decay=0.0)
    own = {name: x * scale for name, x in kept(clipped).items()}
    wanted, _ = jax.jit(adam.update)(own, adam.init(kept(params)), kept(params))
    assert named(updates).keys() == wanted.keys()
    for name, leaf in named(updates).items():
        np.testing.assert_allclose(leaf, wanted[name], rtol=2e-4, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("share", [0, -0.1, float("nan")])
def test_shares_that_are_none_are_refused(share):
    with pytest.raises(UserError, match=r"^CLIP_BY_UNIT=\S+ must be above 0, or None.$"):
        OptimizerConfig(clip_by_unit=share)
