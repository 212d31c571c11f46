"""What compiled TPU programs move, tokens by all-to-alls in bfloat16 and nothing else but sums, and

what they cost.
"""

import pytest
from jax.experimental import topologies

from switchx.planning.cycles import costs, total
from switchx.planning.flops import count_flops
from switchx.planning.network import Network
from switchx.planning.program import collectives
from switchx.planning.topology import parse
from switchx.sharding import MeshConfig
from switchx.training.step import lower_train_step
from tests.planning.helpers import BATCH, INPUTS, E, setup

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


@pytest.fixture(scope="module", params=["full", "dots"])
def step(request):
    """A setup and its compiled training step."""
    remat = request.param
    layers = dict(num_layers=2, num_decoder_layers=0)  # the encoder alone: half to compile
    planned = setup(MESH, {}, devices(), d_model=D, dtype="bfloat16", remat=remat, **layers)
    return planned, lower_train_step(planned).compile()


def test_the_training_step(step):
    """Of each layer two all-to-alls there, two back, and two where all is computed again."""
    planned, compiled = step
    times = {"full": 6, "dots": 4}[planned.run.model.remat]
    slots = BATCH // 4 * E * int(1.25 * INPUTS / E) * D
    assert moved(compiled, planned.mesh) == [times * 2, times * 2 * slots * BFLOAT]


def test_the_cycles_of_the_training_step(step):
    """Every part has its share, and the whole takes longer than its products at the peak rate."""
    planned, compiled = step
    topology = parse("v5e:2x2")
    parts = costs(compiled.as_text(), topology.chip, Network.of(planned.mesh, topology))
    assert [part for part, cost in parts.items() if not cost.total] == []
    executed = count_flops(planned).executed / 4
    peak = topology.chip.peak_flops("bfloat16") / topology.chip.clock
    assert total(parts.values()).cycles > executed / peak
    assert parts["exchange"].cycles == parts["sums"].cycles == 0
