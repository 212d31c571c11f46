"""What compiled TPU programs move: tokens by all-to-alls in bfloat16, and nothing else but sums."""

import os

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.experimental import topologies
from jax.sharding import NamedSharding

from switchx.model import NO_NOISE
from switchx.planning.program import collectives
from switchx.sharding import MeshConfig, batch_sharding, make_mesh, spec
from switchx.training.step import lower_train_step
from tests.helpers import grouping, switch_layer, tiny_config
from tests.planning.helpers import BATCH, INPUTS, TARGETS, E, setup

pytest.importorskip("libtpu")
# libtpu must neither look for the TPU's metadata server nor lock the machine for itself.
os.environ |= {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_LOG_DIR": "disabled",
}
MESH = MeshConfig(1, 4, 1)
D, ROOM, BFLOAT = 128, 3, 2


def devices():
    return topologies.get_topology_desc("v5e:2x2", "tpu").devices


def moved(compiled, mesh):
    """All-to-alls, [count, bytes]; asserts that all else that moves is a sum or tiny."""
    exchanges = [0, 0]
    for each in collectives(compiled.as_text(), mesh.shape):
        assert each.axes == ("expert",)
        if each.kind == "all-to-all":
            assert each.dtype == "bf16"
            exchanges = [each.count, each.bytes]
        elif each.kind != "all-reduce":  # how many rows a device has, and the like
            assert each.dtype in ("s32", "u32"), each
            assert each.bytes < 2048, each
    return exchanges


@pytest.mark.parametrize(("gradients", "exchanges"), [(False, 2), (True, 4)])
def test_the_switch_layer(gradients, exchanges):
    config = tiny_config(d_model=D, dtype="bfloat16", switch=setup(switch={}).run.model.switch)
    mesh = make_mesh(MESH, devices())

    graphdef, state = nnx.split(nnx.eval_shape(lambda: switch_layer(config, 0)))

    def forward(state, x_BLD):
        layer, mask_BL = nnx.merge(graphdef, state), jnp.ones(x_BLD.shape[:2], bool)
        y_BLD, routed = layer(x_BLD, mask_BL, grouping(config, INPUTS, ROOM), NO_NOISE)
        return jnp.sum(y_BLD.astype(jnp.float32) ** 2) + routed.stats.balance_loss

    params = jax.tree.map(
        lambda p: p.replace(
            jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=NamedSharding(mesh, spec(*p.axes)))
        ),
        state,
        is_leaf=lambda leaf: isinstance(leaf, nnx.Variable),
    )
    x_BLD = jax.ShapeDtypeStruct((BATCH, INPUTS, D), jnp.bfloat16, sharding=batch_sharding(mesh))
    function = jax.grad(forward, argnums=(0, 1)) if gradients else forward
    with jax.set_mesh(mesh):
        compiled = jax.jit(function).lower(params, x_BLD).compile()
    slots = BATCH // 4 * E * ROOM * D * BFLOAT
    assert moved(compiled, mesh) == [exchanges, exchanges * slots]


def test_the_training_step():
    """Of each layer two all-to-alls there, two when that is computed again, and two back."""
    planned = setup(MESH, {}, devices(), d_model=D, dtype="bfloat16", num_layers=2, remat="full")
    compiled = lower_train_step(planned).compile()
    slots = sum(BATCH // 4 * E * int(1.25 * length / E) for length in (INPUTS, TARGETS)) * D
    assert moved(compiled, planned.mesh) == [6 * 2 * 2, 6 * 2 * slots * BFLOAT]
