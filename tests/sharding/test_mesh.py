"""The mesh: sizes a user sets, checked; the table of axes; constraints."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from switchx.errors import UserError
from switchx.sharding import (
    LOGICAL_AXES,
    MESH_AXES,
    MeshConfig,
    batch_sharding,
    constrain,
    describe,
    in_force,
    make_mesh,
    spec,
)


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        (MeshConfig(), (8, 1, 1)),
        (MeshConfig(2, 2, 2), (2, 2, 2)),
        (MeshConfig(1, -1, 2), (1, 4, 2)),
        (MeshConfig(2, 1, -1), (2, 1, 4)),
        (MeshConfig(8, 1, -1), (8, 1, 1)),
    ],
)
def test_sizes(config, sizes):
    mesh = make_mesh(config)
    assert tuple(mesh.shape.items()) == tuple(zip(MESH_AXES, (1, *sizes), strict=True))
    assert sorted(device.id for device in mesh.devices.flat) == list(range(8))
    # Explicit axes would make a product over a sharded axis an error.
    assert set(mesh.axis_types) == {AxisType.Auto}


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (MeshConfig(3, 1, 1), r"MESH_DATA=3, MESH_EXPERT=1, MESH_MODEL=1 does not fit 8 devices"),
        (MeshConfig(-1, 3, 1), r"MESH_EXPERT=3.* does not fit 8 devices"),
        (MeshConfig(4, 4, 1), r"their product must be 8"),
        (MeshConfig(-1, -1, 1), r"at most one may be -1"),
        (MeshConfig(0, 1, 8), r"MESH_DATA=0.* whole numbers from 1"),
        (MeshConfig(-2, 1, 8), r"MESH_DATA=-2.* whole numbers from 1"),
        (MeshConfig(2.0, 2, 2), r"MESH_DATA=2.0.* whole numbers from 1"),
        (MeshConfig("8", 1, 1), r"MESH_DATA=8.* whole numbers from 1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(config, says):
    with pytest.raises(UserError, match=says):
        make_mesh(config)


def test_some_of_the_devices():
    mesh = make_mesh(MeshConfig(1, 2, 1), jax.devices()[2:4])
    assert {device.id for device in mesh.devices.flat} == {2, 3}
    with pytest.raises(UserError, match="does not fit 1 device:"):
        make_mesh(MeshConfig(2, 1, 1), jax.devices()[:1])


def test_describe():
    assert describe(make_mesh(MeshConfig(2, 4, 1))) == (
        "replica 1 x data 2 x expert 4 x model 1 over 8 cpu devices"
    )


def test_every_logical_axis_goes_to_axes_of_the_mesh():
    for axes in LOGICAL_AXES.values():
        for axis in (axes,) if isinstance(axes, str) else axes or ():
            assert axis in MESH_AXES
    assert spec("expert", None, "embed", "mlp") == PartitionSpec("expert", None, None, "model")
    with pytest.raises(KeyError):
        spec("no such axis")


def test_batches_are_shared_out_over_data_and_expert():
    mesh = make_mesh(MeshConfig(2, 2, 2))
    x = jax.device_put(np.arange(8 * 3).reshape(8, 3), batch_sharding(mesh))
    assert {shard.data.shape for shard in x.addressable_shards} == {(2, 3)}


def test_constrain_pins_within_a_mesh_and_is_nothing_without():
    x = jnp.arange(32.0).reshape(8, 4)
    assert constrain(x, "batch", None) is x
    mesh = make_mesh(MeshConfig(2, 2, 2))
    with jax.set_mesh(mesh):
        y = jax.jit(lambda x: constrain(x, "batch", "mlp"))(x)
    assert {shard.data.shape for shard in y.addressable_shards} == {(2, 2)}
    np.testing.assert_array_equal(x, y)
    with jax.set_mesh(make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])):
        assert constrain(x, "batch", None) is x


def test_constrain_wants_a_name_for_each_dimension():
    with pytest.raises(ValueError, match="1 axis names for an array of shape"):
        constrain(jnp.zeros((2, 3)), "batch")


@pytest.mark.parametrize(
    "unfit",
    [
        jax.enable_x64(True),
        jax.disable_jit(),
        jax.numpy_rank_promotion("raise"),
        jax.numpy_dtype_promotion("strict"),
        jax.transfer_guard("disallow"),
        jax.transfer_guard_host_to_device("disallow_explicit"),
    ],
)
def test_what_no_run_can_be_computed_with(unfit):
    said = r"^JAX is set to jax_\w+=('\w+'|True), which"
    mesh = make_mesh(MeshConfig())
    with unfit:
        with pytest.raises(UserError, match=said):
            make_mesh(MeshConfig())
        with pytest.raises(UserError, match=said):
            in_force(mesh)
