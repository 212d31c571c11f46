"""The mesh contract: a step computes the same on every mesh, in parts, scanned, rematerialised."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switchx.sharding import MeshConfig, make_mesh
from switchx.training.batches import put_batch
from switchx.training.state import Setup, TrainState
from switchx.training.step import apply_gradients, gradients
from tests.training.helpers import SWITCH, batch, packed_batch, run_config

# All three axes, each two of them, replicas, and what is fully sharded. How a step is computed
# differs in some of them: each way is seen on one.
PLACES = {
    "all three axes": (MeshConfig(2, 2, 2), {}),
    "data and model": (MeshConfig(2, 1, 4), {}),
    "experts and model": (MeshConfig(1, 4, 2), {"microbatches": 2, "remat": "dots"}),
    "replicas": (MeshConfig(2, 2, 1, replica=2), {"scan": False}),
    "fully sharded": (MeshConfig(2, 2, 2, fully_sharded=True), {}),
    "fully sharded replicas": (MeshConfig(2, 1, 2, replica=2, fully_sharded=True), {}),
}
# Who make their fresh state themselves: a quarter of the compilation.
OWN_STATE = ("all three axes", "fully sharded replicas")
ONE = MeshConfig(1, 1, 1)


class Step:
    """A run's compiled step: (gradients, sums, stats, updated state) of the third, on the host."""

    def __init__(self, run):
        sizes = run.mesh
        count = sizes.replica * sizes.data * sizes.expert * sizes.model
        self.setup = Setup.of(run, make_mesh(run.mesh, jax.devices()[:count]))

        def both(state, numbers, batch):
            own = self.setup.given(numbers)
            grads, outcome = gradients(own, state, own.constants, batch)
            return (grads, outcome.sums, outcome.stats), apply_gradients(own, state, grads)

        self.both = jax.jit(both)

    def __call__(self, batch, fresh=None, numbers=None):
        """From a fresh state that the mesh makes itself, unless it is given."""
        setup = self.setup
        state = setup.init() if fresh is None else fresh

        # Moments far from zero make the update smooth in the gradient: from zero moments
        # Adafactor's first step is the gradient's sign, which rounding decides where the true
        # gradient is zero.
        def used(leaf):
            return jnp.ones_like(leaf) * (10 if leaf.dtype == jnp.int32 else 1e-4)

        state = TrainState(state.step + 3, state.params, jax.tree.map(used, state.opt_state))
        with jax.set_mesh(setup.mesh):
            placed = jax.device_put(state, setup.shardings)
            numbers = setup.numbers if numbers is None else numbers
            return jax.device_get(self.both(placed, numbers, put_batch(batch, setup)))


def smooth_run(**changes):
    """Dropout, and GEGLU: where ReLU turns, rounding decides a hidden unit's whole gradient."""
    return run_config(**{"activation": "geglu", "dropout_rate": 0.1, **changes})


@pytest.fixture(scope="module")
def alone():
    """The step of one device."""
    return Step(smooth_run(mesh=ONE))


@pytest.fixture(scope="module")
def fresh(alone):
    return jax.device_get(alone.setup.init())


@pytest.fixture(scope="module")
def reference(alone, fresh):
    return alone(batch(0), fresh)


def assert_same(actual, expected):
    """Float32 sums in another order: 1e-5 of each array's largest value."""
    for (path, a), (_, b) in zip(
        jax.tree_util.tree_leaves_with_path(actual),
        jax.tree_util.tree_leaves_with_path(expected),
        strict=True,
    ):
        scale = np.abs(np.asarray(b)).max() + 1e-12
        np.testing.assert_allclose(
            a, b, rtol=1e-5, atol=1e-5 * scale, err_msg=jax.tree_util.keystr(path)
        )


def test_the_reference_drops_tokens_and_moves_every_parameter(reference):
    (grads, _, stats), _ = reference
    assert stats.dropped_fraction.max() > 0.05
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("place", PLACES)
def test_where_and_how_it_is_computed_changes_nothing(place, reference, fresh):
    mesh, changes = PLACES[place]
    step = Step(smooth_run(mesh=mesh, **changes))
    assert_same(step(batch(0), None if place in OWN_STATE else fresh), reference)


def test_an_encoder_alone_with_experts_in_attention_and_an_extra_feed_forward():
    """On devices of every axis and in microbatches; tests/training/test_balance.py has decoders."""
    input_BL = batch(0)["encoder_input_tokens"]
    weight_BL = (input_BL % 5 == 1).astype(np.float32)
    rows = {
        "encoder_input_tokens": np.where(weight_BL > 0, 255, input_BL).astype(np.int32),
        "encoder_target_tokens": input_BL,
        "encoder_loss_weights": weight_BL,
    }
    changes = {"num_decoder_layers": 0, "d_model": 32, "d_ff": 32, "num_heads": 4}
    switch = dataclasses.replace(SWITCH, experts_in="both", extra_dense=True)
    changes |= {"dropout_rate": 0.0, "switch": switch}
    alone = Step(smooth_run(**changes, mesh=ONE))
    fresh = jax.device_get(alone.setup.init())
    expected = alone(rows, fresh)
    (grads, sums, stats), _ = expected
    assert sums["weight"] == weight_BL.sum()
    assert stats.load_E.shape == (2, 8)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads))
    shared = Step(smooth_run(**changes, mesh=MeshConfig(2, 2, 2), microbatches=2))
    assert_same(shared(rows, fresh), expected)


def test_packed_rows(fresh):
    """In parts and rematerialised, on a mesh of all three axes against one device."""
    rows, alone = packed_batch(0), Step(smooth_run(dropout_rate=0.0, mesh=ONE))
    expected = alone(rows, fresh)
    changes = {"dropout_rate": 0.0, "microbatches": 2, "remat": "full"}
    assert_same(Step(smooth_run(mesh=MeshConfig(2, 2, 2), **changes))(rows, fresh), expected)
    whole = {n: np.minimum(x, 1) if n.endswith("segment_ids") else x for n, x in rows.items()}
    with pytest.raises(AssertionError):  # segments do change the result
        assert_same(alone(whole, fresh)[0][1], expected[0][1])


def test_noise_of_another_seed_does_change_it(alone, reference, fresh):
    other = Setup.of(smooth_run(mesh=ONE, seed=1), alone.setup.mesh)
    with pytest.raises(AssertionError):
        assert_same(alone(batch(0), fresh, other.numbers), reference)
