"""Adafactor against its definition in NumPy, matrix by matrix, and the layout of its state."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from switchx.model import Model
from switchx.sharding import MeshConfig, make_mesh
from switchx.training.config import OptimizerConfig
from switchx.training.optimizer import make_optimizer
from switchx.training.state import Setup
from tests.training.helpers import run_config


class NumpyAdafactor:
    """Shazeer and Stern (2018), algorithms 4 and 5 with T5's settings, for one matrix.

    T5X factors an expert's matrix whatever its size, others if that saves memory.
    """

    def __init__(self, shape, expert):
        self.factored = len(shape) == 2 and (expert or min(shape) >= 128)
        self.v = np.zeros(shape)
        self.row, self.column = np.zeros(shape[0]), np.zeros(shape[-1])

    def update(self, parameter, gradient, t, rate):
        decay = 1.0 - t**-0.8
        square = gradient.astype(np.float64) ** 2 + 1e-30
        if self.factored:
            self.row = decay * self.row + (1 - decay) * square.mean(axis=1)
            self.column = decay * self.column + (1 - decay) * square.mean(axis=0)
            v = np.outer(self.row, self.column) / self.row.mean()
        else:
            v = self.v = decay * self.v + (1 - decay) * square
        update = gradient / np.sqrt(v)
        update /= max(1.0, np.sqrt(np.mean(update**2)))
        scale = max(1e-3, np.sqrt(np.mean(parameter.astype(np.float64) ** 2)))
        return parameter - rate * scale * update


AXES = {
    "plain": ("vocab", "embed"),
    "layers": ("layers", "embed", "mlp"),
    "experts": ("layers", "expert", "embed", "mlp"),
    "small experts": ("layers", "expert", "embed", "mlp"),
    "narrow": ("layers", "embed", None),
    "scale": ("embed",),
}
SHAPES = {
    "plain": (130, 128),
    "layers": (3, 128, 140),
    "experts": (3, 4, 140, 128),
    "small experts": (3, 4, 6, 5),
    "narrow": (3, 128, 4),
    "scale": (150,),
}


def test_every_layers_and_every_experts_matrix_is_a_parameter_of_its_own():
    rng = np.random.default_rng(0)
    params = {
        name: (
            rng.standard_normal(shape)
            * 10.0 ** rng.integers(-5, 1, shape[:1] + (1,) * (len(shape) - 1))
        ).astype(np.float32)
        for name, shape in SHAPES.items()
    }
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1.0, warmup_steps=100), 1000, AXES)
    state = optimizer.init(params)
    matrix_dims = {
        name: len(SHAPES[name]) - sum(a in ("layers", "expert") for a in axes)
        for name, axes in AXES.items()
    }
    peers = {}
    ours, theirs = params, {k: v.astype(np.float64) for k, v in params.items()}
    for t in range(1, 4):
        grads = {k: rng.standard_normal(s).astype(np.float32) for k, s in SHAPES.items()}
        updates, state = jax.jit(optimizer.update)(grads, state, ours)
        ours = optax.apply_updates(ours, updates)
        for name, shape in SHAPES.items():
            for index in np.ndindex(shape[: len(shape) - matrix_dims[name]]):
                fresh = NumpyAdafactor(shape[len(index) :], "expert" in AXES[name])
                peer = peers.setdefault((name, index), fresh)
                theirs[name][index] = peer.update(theirs[name][index], grads[name][index], t, 0.1)
    for name, index in peers:
        ours_at, theirs_at = ours[name][index], theirs[name][index]
        close = 1e-6 * np.abs(theirs_at).max()  # float32 against float64
        np.testing.assert_allclose(ours_at, theirs_at, rtol=1e-5, atol=close, err_msg=name)


@pytest.mark.parametrize("name", ["adafactor", "adamw"])
def test_the_state_lies_like_its_parameters(name):
    run = run_config(name=name)
    setup = Setup.of(run, make_mesh(MeshConfig(1, 4, 2)))
    sharded = {
        jax.tree_util.keystr(path): leaf.sharding.spec
        for path, leaf in jax.tree_util.tree_leaves_with_path(setup.abstract.opt_state)
        if any(axis is not None for axis in leaf.sharding.spec)
    }
    experts = {k: tuple(v) for k, v in sharded.items() if "wi_EDF" in k}
    if name == "adamw":
        assert set(experts.values()) == {(None, "expert", None, "model")}
        assert len(experts) == 4  # two moments in two stacks
    else:
        assert {k.split(".")[-1].split("[")[0]: v for k, v in experts.items()} == {
            "v_row": (None, "expert", None),  # averaged over d_ff, which comes last of equals
            "v_col": (None, "expert", "model"),
        }


def test_adafactors_state_is_small():
    model = Model.of(run_config().model)
    optimizer = make_optimizer(OptimizerConfig(), 10, model.axes)
    sizes = [leaf.size for leaf in jax.tree.leaves(jax.eval_shape(optimizer.init, model.shapes))]
    # Only the router kernels, norms and bias tables (a side below 128) keep a full moment.
    assert sum(sizes) < 0.1 * model.num_params


def test_global_norm_clipping_scales_gradients():
    config = OptimizerConfig(
        name="adamw",
        schedule="constant",
        learning_rate=1.0,
        warmup_steps=1,
        beta1=0.0,
        beta2=0.0,
        clip_global_norm=1.0,
    )
    optimizer = make_optimizer(config, 10, {"w": ("embed",)})
    params = {"w": jnp.zeros(4)}
    big = {"w": jnp.full(4, 5.0)}
    clipped, _ = optax.clip_by_global_norm(1.0).update(big, optax.EmptyState())
    np.testing.assert_allclose(optax.global_norm(clipped), 1.0, rtol=1e-6)
    updates, _ = optimizer.update(big, optimizer.init(params), params)
    assert np.all(np.isfinite(updates["w"]))
