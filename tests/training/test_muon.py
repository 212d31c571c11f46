"""Muon against its definition in NumPy, matrix by matrix, and on devices of every axis."""

import re

import jax
import numpy as np
import optax

from switchx.sharding import MeshConfig, make_mesh
from switchx.training.config import OptimizerConfig
from switchx.training.optimizers import make_optimizer
from switchx.training.schedules import Rates, make_schedule
from switchx.training.state import Setup
from tests.training.helpers import run_config

RATE = 0.01
CONFIG = OptimizerConfig(
    "muon", schedule="constant", learning_rate=RATE, warmup_steps=1, weight_decay=0.1
)


class NumpyMuon:
    """https://kellerjordan.github.io/posts/muon with 2502.16982's scale and decay, one matrix."""

    def __init__(self, shape):
        self.momentum = np.zeros(shape)

    def update(self, parameter, gradient):
        self.momentum = 0.95 * self.momentum + gradient
        x = gradient + 0.95 * self.momentum
        x = x / np.linalg.norm(x)
        for _ in range(5):
            square = x @ x.T
            x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
        step = 0.2 * np.sqrt(max(x.shape)) * x
        return parameter - RATE * (step + 0.1 * parameter)


ORTHOGONAL = {
    "heads": (("layers", "embed", "heads"), (3, 6, 8)),
    "experts": (("layers", "expert", "mlp", "embed"), (2, 4, 9, 6)),
}
OTHERS = {
    "router": (("layers", "embed", None), (3, 6, 4)),
    "positions": (("heads", "buckets"), (2, 8)),
    "embedding": (("vocab", "embed"), (12, 6)),
    "norm": (("layers", "embed"), (3, 6)),
}


def test_each_layers_and_each_experts_matrix_is_a_matrix_of_its_own():
    rng = np.random.default_rng(0)
    all_of = ORTHOGONAL | OTHERS
    begun, *steps = (
        {name: rng.standard_normal(shape).astype(np.float32) for name, (_, shape) in all_of.items()}
        for _ in range(4)
    )
    axes = {name: own for name, (own, _) in all_of.items()}
    optimizer = make_optimizer(CONFIG, make_schedule("constant", Rates.of(CONFIG, 10)), axes)
    ours = of_optax(optimizer, begun, steps)
    for name, (_, shape) in ORTHOGONAL.items():
        for index in np.ndindex(shape[:-2]):
            peer, wanted = NumpyMuon(shape[-2:]), np.float64(begun[name][index])
            for grads in steps:
                wanted = peer.update(wanted, np.float64(grads[name][index]))
            np.testing.assert_allclose(ours[name][index], wanted, atol=1e-5, err_msg=name)
    adamw = optax.adamw(RATE, 0.9, 0.98, weight_decay=0.1)
    for name in OTHERS:
        theirs = of_optax(adamw, begun[name], [grads[name] for grads in steps])
        np.testing.assert_allclose(ours[name], theirs, atol=1e-6, err_msg=name)


def of_optax(optimizer, params, steps):
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for grads in steps:
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params


def test_on_devices_of_every_axis_it_is_the_same_and_no_expert_leaves_its_own():
    ours, updates, program = updated(MeshConfig(1, 4, 2), jax.devices())
    of_experts = [
        (leaf.shape[:2], tuple(leaf.sharding.spec))
        for path, leaf in jax.tree_util.tree_leaves_with_path(ours.abstract.opt_state)
        if "wi_EDF" in jax.tree_util.keystr(path)
    ]
    assert of_experts == [((2, 8), (None, "expert", None, "model"))]  # the momentum alone
    assert "all-reduce" in program
    assert not re.search("all-gather|all-to-all|collective-permute", program)
    _, alone, _ = updated(MeshConfig(1, 1, 1), jax.devices()[:1])
    # Newton and Schulz multiply what is smallest by 3.4445 in each step, and its rounding with it.
    for mine, theirs in zip(jax.tree.leaves(updates), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-4 * np.abs(theirs).max())


def updated(sizes, devices):
    """A setup of two layers with experts, its update for gradients of ones and noise, and how."""
    sizes_of_model = dict(d_model=16, d_ff=24, num_heads=4, num_layers=2, num_decoder_layers=0)
    run = run_config(optimizer=CONFIG, mesh=sizes, **sizes_of_model)
    setup = Setup.of(run, make_mesh(sizes, devices))
    state = setup.init()
    rng = np.random.default_rng(0)
    grads = jax.tree.map(lambda x: rng.standard_normal(x.shape).astype(np.float32), state.params)
    with jax.set_mesh(setup.mesh):
        placed = jax.device_put(grads, setup.shardings.params)
        update = jax.jit(setup.optimizer.update, out_shardings=(setup.shardings.params, None))
        program = update.lower(placed, state.opt_state, state.params).compile()
        updates, _ = program(placed, state.opt_state, state.params)
        return setup, jax.device_get(updates), program.as_text()
