"""`switchx compare`: what sets runs apart, by name."""

import json

import pytest

from switchx.cli.main import main
from switchx.reports.runs import read_run
from tests.reports.made_up import loss, make_run
from tests.reports.test_sweep_report import embedded, refused


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    make_run(folder / "a")
    make_run(folder / "b", speed=2.0, LEARNING_RATE=0.5)
    make_run(folder / "c", 4, speed=4.0, until=500)
    make_run(folder / "elsewhere" / "a", seed=1, speed=1.1)
    return folder


def compare(runs, out, *names):
    assert main(["compare", *(str(runs / name) for name in names), f"--output={out}"]) == 0
    return json.loads((out / "report.json").read_text())


def test_two_runs(runs, tmp_path, capsys):
    found = compare(runs, tmp_path / "out", "a", "b")
    assert found["differences"] == [{"name": "LEARNING_RATE", "values": ["1.0", "0.5"]}]
    for row in found["equal_steps"]:
        expected = [loss(row["step"], 1), loss(row["step"], 2)]
        assert row["losses"] == pytest.approx(expected, abs=1e-4)
    (speed,) = found["speed_ups"]
    assert (speed["group"], speed["baseline"]) == ("b", "a")
    assert speed["steps"]["mean"] == pytest.approx(2, rel=0.01)
    out = capsys.readouterr().out
    assert "LEARNING_RATE  1.0  0.5" in out
    assert embedded((tmp_path / "out" / "report.html").read_text())[0]["title"] == "a and b"


def test_runs_of_one_name_are_told_apart_and_one_that_goes_on_is_taken(runs, tmp_path):
    found = compare(runs, tmp_path / "out", "a", "elsewhere/a", "c")
    names = [run["name"] for run in found["runs"]]
    assert names[1:] == ["elsewhere/a", "c"]
    assert names[0].endswith("/a")
    assert names[0] != "elsewhere/a"
    assert [group["runs"] for group in found["groups"]] == [names[:2], ["c"]]  # alike but for seeds
    assert found["equal_steps"][-1]["step"] == 500
    differing = {one["name"]: one["values"] for one in found["differences"]}
    assert differing["SEED"] == ["0", "1", "0"]
    assert differing["NUM_EXPERTS"] == ["dense", "dense", "4"]
    others = differing["other settings of experts"]
    assert others[:2] == ["none", "none"]
    assert "ENCODER_GROUP_SIZE=64" in others[2]


def test_mistakes_are_one_line(runs, tmp_path, capsys):
    a, b = str(runs / "a"), str(runs / "b")
    out = f"--output={tmp_path / 'out'}"
    assert "is one run alone" in refused(capsys, "compare", a, out)
    assert "--gin.SEED=1 does nothing" in refused(capsys, "compare", a, b, "--gin.SEED=1", out)
    assert "is named twice" in refused(capsys, "compare", a, f"{a}/../a", out)
    assert "holds no config.gin" in refused(capsys, "compare", a, str(runs), out)
    empty = make_run(tmp_path / "empty")
    (empty / "metrics.jsonl").unlink()
    assert f"RUN={str(empty)!r} has no metrics" in refused(capsys, "compare", a, str(empty), out)
    assert "holds something that is no" in refused(capsys, "compare", a, b, f"--output={runs}")
    within = f"--output={a}/checkpoints/9"
    assert "lies in the run directory" in refused(capsys, "compare", a, b, within)
    assert not (tmp_path / "out").exists()


def test_a_teachers_forward_pass_counts_though_the_teacher_is_gone(tmp_path):
    teacher = {"path": "gone", "step": 9, "seal": "", "forward_flops": 1000}
    sizes = []
    for share in (0.25, 0.0):
        place = tmp_path / str(share)
        make_run(place, OBJECTIVE="distill", TEACHER="gone", TEACHER_SHARE=share)
        (place / "start.json").write_text(json.dumps({"from": "fresh", "teacher": teacher}))
        sizes.append(read_run("a", place).size)
    taught, alone = sizes
    assert taught.flops_per_step == alone.flops_per_step + 8 * 1000
    assert taught.parameters == alone.parameters
