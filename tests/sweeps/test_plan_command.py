"""switchx sweep plan, and the folder that it makes."""

import hashlib
import json

import pytest

from switchx.cli.main import main
from switchx.settings import Request, load
from switchx.sweeps.folder import SweepFolder

TOY = "--gin_file=configs/sweeps/toy.gin"


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep") / "toy"
    assert main(["sweep", "plan", TOY, f"--sweep_dir={folder}"]) == 0
    return SweepFolder.open(folder)


def test_each_config_is_what_training_would_write_there(planned):
    assert [tuple(point.varied.items()) for point in planned.points] == [
        (("NUM_EXPERTS", experts), ("SEED", seed)) for experts in (1, 2, 4) for seed in (0, 1)
    ]
    for point in planned.points:
        file = planned.config_file(point)
        alone = load(Request(gin_files=(str(file),)))
        assert alone.resolved == file.read_text()
        assert alone.model_dir == str(file.parent)
        switch = alone.run.model.switch
        assert (switch.num_experts if switch else 1) == point.varied["NUM_EXPERTS"]
        assert alone.run.trainer.seed == alone.data.seed == point.varied["SEED"]
        lines = [x for x in file.read_text().splitlines(True) if not x.startswith("MODEL_DIR")]
        digest = hashlib.sha256("".join(lines).encode()).hexdigest()
        assert point.config == digest
        assert point.name.endswith(f"_{digest[:8]}")


def test_the_commands_of_a_dry_run_are_those_of_the_points(planned, capsys):
    assert main(["sweep", "plan", TOY, f"--sweep_dir={planned.path}", "--dry_run"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [
        f"switchx train --gin_file={planned.config_file(point)}" for point in planned.points
    ]


def test_the_sweep_that_its_folder_keeps_is_the_same(planned, capsys):
    before = {path: path.stat().st_mtime_ns for path in planned.path.rglob("*")}
    assert main(["sweep", "plan", f"--gin_file={planned.path}/sweep.gin", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [point["name"] for point in found["points"]] == [p.name for p in planned.points]
    assert found["sweep_dir"] == str(planned.path)
    assert {path: path.stat().st_mtime_ns for path in planned.path.rglob("*")} == before
