"""What compiled TPU programs move: tokens by all-to-alls in bfloat16, and nothing else but sums."""

import pytest
from jax.experimental import topologies

from switchx.planning.program import collectives
from switchx.sharding import MeshConfig
from switchx.training.step import lower_train_step
from tests.planning.helpers import BATCH, INPUTS, TARGETS, E, setup

pytest.importorskip("libtpu")
MESH = MeshConfig(1, 4, 1)
D, BFLOAT = 128, 2


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


@pytest.mark.parametrize(("remat", "times"), [("full", 6), ("dots", 4)])
def test_the_training_step(remat, times):
    """Of each layer two all-to-alls there, two back, and two where all is computed again."""
    planned = setup(MESH, {}, devices(), d_model=D, dtype="bfloat16", num_layers=2, remat=remat)
    compiled = lower_train_step(planned).compile()
    slots = sum(BATCH // 4 * E * int(1.25 * length / E) for length in (INPUTS, TARGETS)) * D
    assert moved(compiled, planned.mesh) == [times * 2 * 2, times * 2 * slots * BFLOAT]
