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
from tests.training.helpers import batch, packed_batch, run_config

# Each axis alone, as 4, as 2, and each two of them.
MESHES = [(8, 1, 1), (1, 8, 1), (1, 1, 8), (4, 2, 1), (1, 4, 2), (2, 1, 4), (2, 2, 2)]


def one_step(run, devices, rows=batch, fresh=None):
    """(gradients, sums, stats, updated state) of the third step, on the host.

    From a fresh state that the mesh makes itself, unless it is given.
    """
    setup = Setup.of(run, make_mesh(run.mesh, devices))
    state = setup.init() if fresh is None else fresh

    # Moments far from zero make the update smooth in the gradient: from zero moments Adafactor's
    # first step is the gradient's sign, which rounding decides where the true gradient is zero.
    def used(leaf):
        return jnp.ones_like(leaf) * (10 if leaf.dtype == jnp.int32 else 1e-4)

    state = TrainState(state.step + 3, state.params, jax.tree.map(used, state.opt_state))

    def both(state, numbers, batch):
        own = setup.given(numbers)
        grads, outcome = gradients(own, state, own.constants, batch)
        return (grads, outcome.sums, outcome.stats), apply_gradients(own, state, grads)

    with jax.set_mesh(setup.mesh):
        placed = jax.device_put(state, setup.shardings)
        return jax.device_get(jax.jit(both)(placed, setup.numbers, put_batch(rows(0), setup)))


def smooth_run(**changes):
    """Dropout, and GEGLU: where ReLU turns, rounding decides a hidden unit's whole gradient."""
    return run_config(**{"activation": "geglu", "dropout_rate": 0.1, **changes})


def fresh_state(run):
    """Of one device, on the host."""
    return jax.device_get(Setup.of(run, make_mesh(run.mesh, jax.devices()[:1])).init())


@pytest.fixture(scope="module")
def fresh():
    return fresh_state(smooth_run(mesh=MeshConfig(1, 1, 1)))


@pytest.fixture(scope="module")
def reference(fresh):
    run = smooth_run(mesh=MeshConfig(1, 1, 1))
    return one_step(run, jax.devices()[:1], fresh=fresh)


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


@pytest.mark.parametrize("sizes", MESHES, ids=lambda s: "x".join(map(str, s)))
def test_axes_alone_in_pairs_and_all_three(sizes, reference, fresh):
    """The mesh of all axes makes its fresh state too: a quarter of the compilation."""
    own = sizes == (2, 2, 2)
    run = smooth_run(mesh=MeshConfig(*sizes))
    assert_same(one_step(run, jax.devices(), fresh=None if own else fresh), reference)


def test_an_encoder_alone_on_devices_of_every_axis():
    def rows(step):
        whole = batch(step)
        input_BL = whole["encoder_input_tokens"]
        weight_BL = (input_BL % 5 == 1).astype(np.float32)
        return {
            "encoder_input_tokens": np.where(weight_BL > 0, 255, input_BL).astype(np.int32),
            "encoder_target_tokens": input_BL,
            "encoder_loss_weights": weight_BL,
        }

    changes = {"num_decoder_layers": 0, "d_model": 32, "d_ff": 32, "num_heads": 4}
    changes |= {"dropout_rate": 0.0}
    alone = one_step(smooth_run(**changes, mesh=MeshConfig(1, 1, 1)), jax.devices()[:1], rows)
    shared = smooth_run(**changes, mesh=MeshConfig(2, 2, 2), microbatches=2)
    assert_same(one_step(shared, jax.devices(), rows), alone)
    assert alone[0][1]["weight"] == rows(0)["encoder_loss_weights"].sum()


@pytest.mark.parametrize(
    "changes",
    [{"scan": False}, {"microbatches": 2, "remat": "dots"}],
    ids=str,
)
def test_how_it_is_computed_changes_nothing(changes, reference, fresh):
    """And remat in full in `test_packed_rows`."""
    run = smooth_run(mesh=MeshConfig(2, 2, 2), **changes)
    assert_same(one_step(run, jax.devices(), fresh=fresh), reference)


@pytest.mark.parametrize(
    "mesh",
    [
        MeshConfig(2, 2, 2, fully_sharded=True),
        MeshConfig(2, 2, 1, replica=2),
        MeshConfig(2, 1, 2, replica=2, fully_sharded=True),
    ],
    ids=str,
)
def test_replicas_and_fully_sharded_state_change_nothing(mesh, reference, fresh):
    """What is fully sharded in replicas makes its fresh state too."""
    own = mesh.fully_sharded and mesh.replica > 1
    found = one_step(smooth_run(mesh=mesh), jax.devices(), fresh=None if own else fresh)
    assert_same(found, reference)


def test_experts_in_attention_and_an_extra_feed_forward():
    """And their microbatches: a mesh of all three axes against one device."""
    model = smooth_run(dropout_rate=0.0).model
    switch = dataclasses.replace(model.switch, experts_in="both", extra_dense=True)
    model = dataclasses.replace(model, switch=switch)
    alone = smooth_run(model=model, mesh=MeshConfig(1, 1, 1))
    fresh = fresh_state(alone)
    expected = one_step(alone, jax.devices()[:1], fresh=fresh)
    (gradients_of_all, _, stats), _ = expected
    assert stats.load_E.shape == (4, 8)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients_of_all))
    run = smooth_run(model=model, mesh=MeshConfig(2, 2, 2), microbatches=2)
    assert_same(one_step(run, jax.devices(), fresh=fresh), expected)


def test_packed_rows(reference, fresh):
    """In parts and rematerialised, on a mesh of all three axes against one device."""
    one = one_step(smooth_run(mesh=MeshConfig(1, 1, 1)), jax.devices()[:1], packed_batch, fresh)
    run = smooth_run(mesh=MeshConfig(2, 2, 2), microbatches=2, remat="full")
    assert_same(one_step(run, jax.devices(), packed_batch, fresh), one)
    with pytest.raises(AssertionError):  # segments do change the result
        assert_same(one[0][1], reference[0][1])


def test_noise_of_another_seed_does_change_it(reference, fresh):
    run = smooth_run(mesh=MeshConfig(1, 1, 1), seed=1)
    other = one_step(run, jax.devices()[:1], fresh=fresh)
    with pytest.raises(AssertionError):
        assert_same(other, reference)
