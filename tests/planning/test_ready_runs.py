"""The ready runs of configs/runs/ go on the topologies that their headers name."""

import re
from pathlib import Path

import pytest

from switchx.planning import fit, memory
from switchx.planning.plan import abstract_mesh
from switchx.planning.topology import parse
from switchx.settings import Request, load
from switchx.training.checks import check_run
from switchx.training.step import abstract_batch

RUNS = Path(__file__).parents[2] / "configs/runs"
READY = {
    "switch_base_v5e_256": 7_415_217_408,
    "switch_large_v5p": 26_309_291_008,
    "switch_xxl_v5p": 394_675_073_024,
    "switch_c_v5p": 1_571_375_798_688,
}


@pytest.mark.parametrize("name", READY)
def test_a_ready_run(name):
    path = RUNS / f"{name}.gin"
    (command,) = re.findall(r"^# switchx plan (.*)$", path.read_text(), re.MULTILINE)
    file, topology = re.fullmatch(r"--gin_file=(\S+) --topology=(\S+)", command).groups()
    assert (RUNS.parents[1] / file).samefile(path)
    topology = parse(topology)
    assert topology.num_chips <= 256
    loaded = load(Request((str(path),)), defaults={"TFDS_DATA_DIR": None})
    run = loaded.run
    check_run(run, abstract_mesh(run, topology))
    assert run.batch.batch_size * run.batch.input_length == 2**20
    assert run.trainer.train_steps == 550_000
    assert loaded.data.shards % topology.hosts == 0
    setup = fit.layout(run, topology)
    assert setup.model.num_params == READY[name]
    batch = abstract_batch(run.batch, setup)
    assert memory.analytic(setup, batch, topology.chip.hbm_bytes).over == 0
