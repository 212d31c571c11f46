"""A sweep's folder: made once, kept as the sweep's file changes, refused where it is another's."""

import json
import math
import re
import shutil

import pytest

from switchx.errors import UserError
from switchx.settings import Request, load, read_flag
from switchx.sweeps import making
from switchx.sweeps.folder import SweepFolder
from tests.sweeps.test_points import TINY

SEEDS = "SweepConfig.axes = {'SEED': [0, 1]}\n"


def make(folder, text, *flags, name="mine", sweep_dir=None):
    file = folder / f"{name}.gin"
    file.write_text(TINY + text)
    bindings = tuple(read_flag(flag) for flag in flags)
    return making.make(Request((str(file),), bindings), str(sweep_dir or folder / "sweep"))


def written(folder, *args, **kwargs):
    made = make(folder, *args, **kwargs)
    made.write()
    return made


@pytest.fixture
def sweep(tmp_path):
    return written(tmp_path, SEEDS).folder


def refused(folder, *args, **kwargs):
    with pytest.raises(UserError) as caught:
        written(folder, *args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_runs_directory_is_no_sweeps(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.gin").write_text("")
    said = refused(tmp_path, SEEDS, sweep_dir=tmp_path / "run")
    assert "run' is the directory of a run: give the sweep a folder of its own" in said
    assert len(list((tmp_path / "run").iterdir())) == 1


def test_a_folder_without_a_name_is_not_the_default(tmp_path):
    (tmp_path / "mine.gin").write_text(TINY + SEEDS)
    for flags, sweep_dir in (((), ""), (("SWEEP_DIR=''",), None)):
        request = Request((str(tmp_path / "mine.gin"),), tuple(map(read_flag, flags)))
        with pytest.raises(UserError, match="SWEEP_DIR='' names no file"):
            making.make(request, sweep_dir)


def test_a_changed_sweep_keeps_what_is_the_same_run(tmp_path, sweep):
    started = sweep.run_directory(sweep.points[1])
    (started / "metrics.jsonl").write_text("")
    text = "SweepConfig.axes = {'SEED': [1, 2], 'BATCH_SIZE': [8, 16]}\n"
    made = written(tmp_path, text)
    kept = [point for point in made.folder.points if point in sweep.points]
    assert [point.varied for point in made.folder.points if point.name not in made.new] == [
        {"SEED": 1, "BATCH_SIZE": 8}
    ]
    assert made.folder.run_directory(made.folder.points[0]) == started
    assert kept == []  # of the same run, other things vary now
    assert made.gone == (sweep.points[0].name,)
    assert made.changes()[0].startswith("new since the sweep was last planned: ")
    assert made.changes()[1].startswith(f"no longer points of the sweep: {sweep.points[0].name}")
    assert sweep.config_file(sweep.points[0]).exists()
    assert SweepFolder.open(sweep.path) == made.folder
    back = written(tmp_path, SEEDS)
    assert back.folder.points == sweep.points
    assert back.new == (sweep.points[0].name,)


def test_a_fork_is_of_the_name_that_the_other_point_has(tmp_path):
    wsd = "SCHEDULE = 'wsd'\nWARMUP_STEPS = 2\n"
    axes = "SweepConfig.axes = {'TRAIN_STEPS': [20, 40]%s}\n"
    before = written(tmp_path, wsd + axes % "").folder.points
    after = written(tmp_path, wsd + axes % ", 'SEED': [0]").folder.points
    assert [point.name for point in after] == [point.name for point in before]
    assert after[0].fork == before[0].fork
    assert after[0].fork.point == after[1].name


def test_another_sweeps_folder_is_refused(tmp_path, sweep):
    said = refused(tmp_path, SEEDS, name="other")
    assert "is the folder of another sweep, 'mine', and this is 'other'" in said
    changed = "LEARNING_RATE = 0.5\n" + SEEDS
    assert written(tmp_path, changed).gone == tuple(point.name for point in sweep.points)
    (sweep.path / "state/a_point").mkdir(parents=True)
    assert "that has been run and shares no point with this one" in refused(tmp_path, SEEDS)


def test_a_point_that_was_touched_is_refused_until_it_is_removed(tmp_path, sweep):
    file = sweep.config_file(sweep.points[1])
    before = file.read_text()
    file.write_text(before.replace("SEED = 1", "SEED = 3"))
    assert f"SWEEP_DIR leads to {str(file)!r}, which is not what" in refused(tmp_path, SEEDS)
    file.unlink()
    written(tmp_path, SEEDS)
    assert file.read_text() == before
    file.write_text(before.replace(str(sweep.path), "elsewhere"))  # a folder that was moved
    written(tmp_path, SEEDS)


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(UserError, match=r"holds no sweep\.json, so no sweep was planned there"):
        SweepFolder.open(tmp_path)
    for content, why in (
        ("{", "has a sweep.json that is none"),
        ("[]", r"sweep.json that is none \(\[\] stands where a JSON object should\)"),
        ("[" * 100_000, "has a sweep.json that is none"),
        ('{"format": 99}', "a sweep of format 99.*use a later version"),
        ('{"format": 1}', "'name' is missing"),
        ('{"format": 2, "switchx": "9.0"}', "a sweep of format 2.*use version 9.0 or later"),
    ):
        (tmp_path / "sweep.json").write_text(content)
        with pytest.raises(UserError, match=why):
            SweepFolder.open(tmp_path)


def test_a_sweep_json_that_was_edited_into_none(sweep):
    file = sweep.path / "sweep.json"
    before = file.read_text()
    points = json.loads(before)["points"]
    first, second = points[0], points[1]
    for values, why in (
        ({"points": [{**first, "name": "../../elsewhere"}]}, "is no point's name"),
        ({"points": [first, second, first]}, f"the point {first['name']} stands there 2 times"),
        ({"points": [first, first["name"]]}, "stands where a JSON object should"),
        ({"points": [{**first, "flops": math.inf}]}, "flops is inf, no whole number"),
        ({"points": [{**first, "steps": 0}]}, "steps is 0, no whole number of at least 1"),
        ({"points": [{**first, "varied": ""}]}, '"" stands where a JSON object should'),
        ({"points": []}, "it has no points"),
        ({"retries": -1}, "retries is -1, no whole number of at least 0"),
        ({"on_failure": "halt"}, "on_failure is 'halt', not one of go_on, stop"),
        ({"order": ["listed"]}, "order is ['listed'], not one of longest, listed"),
        ({"counted": ["router", "bias"]}, "counted is ['router', 'bias'], no list of logits, rou"),
        ({"counted": "logits"}, "counted is 'logits', no list of logits, router"),
        ({"format": True}, "format is True, no whole number of at least 1"),
    ):
        file.write_text(json.dumps({**json.loads(before), **values}))
        with pytest.raises(UserError, match=re.escape(why)):
            SweepFolder.open(sweep.path)


def test_a_users_own_file_is_not_written_over(tmp_path):
    """As of who states a sweep in the sweep.gin of its own folder."""
    (tmp_path / "sweep").mkdir()
    own = tmp_path / "sweep/sweep.gin"
    own.write_text(TINY + SEEDS)
    said = refused(tmp_path, SEEDS)
    assert "has a sweep.gin that no sweep wrote, and this one would: name another folder" in said
    assert own.read_text() == TINY + SEEDS
    assert list((tmp_path / "sweep").iterdir()) == [own]


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "sweep").write_text("a file")
    assert "SWEEP_DIR=" in refused(tmp_path, SEEDS)


def test_files_of_an_axis_travel_with_the_sweep(tmp_path):
    (tmp_path / "wide.gin").write_text("ModelConfig.d_ff = 256\nLOG_PERIOD = 7\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/wide.gin").write_text("ModelConfig.d_ff = 64\n")
    files = ["wide.gin", "wide.gin", "other/wide.gin", "configs/models/tiny_dense.gin"]
    axes = {"gin_file": files, "SEED": [0, 1, 1, 0]}
    text = f"SweepConfig.axes = {axes}\nSweepConfig.zipped = [('gin_file', 'SEED')]\n"
    first = written(tmp_path, text, "LOG_PERIOD=5", sweep_dir=tmp_path / "first")
    (tmp_path / "wide.gin").unlink()
    moved = tmp_path / "moved"
    shutil.copytree(first.folder.path, moved)
    named = [point.varied["gin_file"] for point in first.folder.points]
    assert named == ["wide", "wide", "other-wide", "tiny_dense"]
    again = making.make(Request((str(moved / "sweep.gin"),)))
    assert again.folder == SweepFolder.open(moved)
    assert making.make(Request(), str(moved)).folder == again.folder
    assert again.texts == first.texts
    assert not again.new


def test_a_sweep_in_a_bucket(tmp_path, gs):
    made = written(tmp_path, SEEDS, sweep_dir=f"{gs.root}/sweep")
    assert SweepFolder.open(f"{gs.root}/sweep") == made.folder
    file = str(made.folder.config_file(made.folder.points[0]))
    assert file.startswith("gs://")
    assert load(Request((file,))).model_dir == file.removesuffix("/config.gin")
    assert not written(tmp_path, SEEDS, sweep_dir=f"{gs.root}/sweep").new
