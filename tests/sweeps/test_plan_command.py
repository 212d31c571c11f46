"""switchx sweep plan, and the folder that it makes."""

import hashlib
import json
from types import SimpleNamespace

import pytest

from switchx.cli.main import main
from switchx.settings import Request, load
from switchx.sweeps.folder import SweepFolder

TOY = "--gin_file=configs/sweeps/toy.gin"


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep") / "a toy"
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
        assert (switch.num_experts if switch else "dense") == {1: "dense", 2: 2, 4: 4}[
            point.varied["NUM_EXPERTS"]
        ]
        assert alone.run.trainer.seed == alone.data.seed == point.varied["SEED"]
        lines = [x for x in file.read_text().splitlines(True) if not x.startswith("MODEL_DIR")]
        digest = hashlib.sha256("".join(lines).encode()).hexdigest()
        assert point.config == digest
        assert point.name.endswith(f"_{digest[:8]}")


def test_the_commands_are_those_of_the_points(planned, capsys):
    assert main(["sweep", "plan", TOY, f"--sweep_dir={planned.path}", "--commands"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        f"switchx train --gin_file='{planned.config_file(point)}'" for point in planned.points
    ]
    assert f"run it with `switchx sweep run --sweep_dir='{planned.path}'`" in said.err


def test_the_sweep_that_its_folder_keeps_is_the_same(planned, capsys):
    before = {path: path.stat().st_mtime_ns for path in planned.path.rglob("*")}
    assert main(["sweep", "plan", f"--gin_file={planned.path}/sweep.gin", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [point["name"] for point in found["points"]] == [p.name for p in planned.points]
    assert found["sweep_dir"] == str(planned.path)
    assert {path: path.stat().st_mtime_ns for path in planned.path.rglob("*")} == before


@pytest.fixture
def stated(tmp_path):
    """A sweep of four points, of which two compile the same step."""
    file = tmp_path / "mine.gin"
    axes = "{'ModelConfig.d_model': [16, 32], 'SEED': [0, 1]}"
    file.write_text(f"include 'configs/sweeps/toy.gin'\nSweepConfig.axes = {axes}\n")
    return [f"--gin_file={file}", f"--sweep_dir={tmp_path / 'sweep'}"]


def plan(stated, capsys, *flags):
    status = main(["sweep", "plan", *stated, *flags])
    shown = capsys.readouterr()
    return status, shown.out, shown.err


def test_points_that_cannot_run_are_named_and_nothing_is_written(stated, tmp_path, capsys):
    status, out, err = plan(stated, capsys, "--gin.MESH_EXPERT=3")
    assert status == 2
    assert err.startswith(
        "switchx: 4 of 4 points cannot run, and nothing was written: NUM_EXPERTS=8 must be a "
        "multiple of MESH_EXPERT=3. (NUM_EXPERTS: configs/models/tiny_switch.gin line "
    )
    assert out.count("cannot run: NUM_EXPERTS=8 must be a multiple of MESH_EXPERT=3") == 4
    assert not (tmp_path / "sweep").exists()
    status, out, err = plan(stated, capsys, "--gin.VOCABULARY=t5", "--json")
    assert status == 2
    assert "vocab_size=2176 is less than the 32100 ids" in json.loads(out)["points"][0]["problem"]


def test_points_of_the_same_program_are_planned_once(stated, capsys, monkeypatch):
    asked = []

    def make_plan(run, topology, say):
        asked.append((run.model.d_model, topology.name))
        say("compiling")
        return SimpleNamespace(
            memory=SimpleNamespace(total=3 * 10**9),
            compilation="done",
            fits=run.model.d_model < 32,
            likely=SimpleNamespace(seconds=0.5),
            seconds=0.5,
        )

    monkeypatch.setattr("switchx.planning.plan.make_plan", make_plan)
    monkeypatch.setattr("switchx.planning.report.refusal", lambda made: "too large: lower it.")
    status, out, err = plan(stated, capsys, "--topology=v5e-1")
    assert asked == [(16, "v5e:1x1"), (32, "v5e:1x1")]
    assert err.splitlines()[0] == "1/2 ModelConfig.d_model=16, SEED=0: compiling"
    assert status == 2
    assert "2 of 4 points cannot run, and nothing was written: too large: lower it." in err
    rows = [line.split() for line in out.splitlines() if line.startswith("d_model-")]
    assert [row[-2:] for row in rows if "cannot" not in row] == [["3.00", "~0:10"]] * 4


def test_a_topology_without_a_compiler(stated, capsys):
    """By hand: at 197 TFLOP/s; the state and gradients of 2.9 billion parameters fit no 17 GB."""
    flags = ("--topology=v5e-1", "--analytic", "--json", "--gin.DTYPE=bfloat16")
    status, out, _ = plan(stated, capsys, *flags)
    assert status == 0
    for point in json.loads(out)["points"]:
        assert point["seconds"] == pytest.approx(point["flops"] / 197e12)
        assert point["seconds_told_by"] == "bound"
        assert not point["memory_is_whole"]
    status, out, err = plan(stated, capsys, *flags, "--gin.NUM_EXPERTS=700000")
    assert status == 2
    assert "v5e:1x1 does not fit this run: without activations a chip needs " in err
    assert "and has 16.91; try " in err


def test_times_follow_from_a_point_that_is_done(stated, tmp_path, capsys):
    assert plan(stated, capsys)[0] == 0
    folder = SweepFolder.open(tmp_path / "sweep")
    first = folder.points[0]
    folder.state_directory(first).mkdir(parents=True)
    (folder.state_directory(first) / "done.json").write_text('{"steps": 20, "seconds": 10.0}')
    status, out, _ = plan(stated, capsys, "--json")
    found = json.loads(out)
    told = [(point["seconds_told_by"], point["seconds"]) for point in found["points"]]
    other = 10.0 * folder.points[2].flops / first.flops
    assert status == 0
    assert [name for name, _ in told] == ["done", "same", "rate", "rate"]
    assert [seconds for _, seconds in told] == pytest.approx([10, 10, other, other])
    assert found["seconds"] == pytest.approx(20 + 2 * other)
    assert found["flops"] == sum(point["flops"] for point in found["points"])


def test_points_have_their_teacher(tmp_path, capsys):
    """So that their memory and time are counted with it, and one that is not there is known."""
    taught = ["--gin.OBJECTIVE=distill", "--gin.TEACHER=absent"]
    assert main(["sweep", "plan", TOY, f"--sweep_dir={tmp_path / 'toy'}", *taught]) == 2
    said = capsys.readouterr().err
    assert "points cannot run, and nothing was written: TEACHER='absent' holds no ch" in said
