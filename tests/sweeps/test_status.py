"""What is shown of a sweep whose folder was made up, and that showing it is light."""

import io
import json
import subprocess
import sys
import time

import pytest

from switchx import storage
from switchx.cli.main import main
from switchx.sweeps import watching
from switchx.sweeps.claims import EXPIRY
from switchx.sweeps.slots import environments, gpus
from switchx.sweeps.states import States
from switchx.sweeps.status import Status

from .made_up import held_elsewhere, point, sweep


def train_row(step, rate, loss):
    return {"step": step, "split": "train", "loss": loss, "steps_per_second": rate, "time": 0.0}


@pytest.fixture
def folder(tmp_path):
    """One point of each kind; each has 10 steps and 100 FLOPs."""
    names = ("finished", "going", "broken", "again", "lost")
    points = [point(name) for name in names]
    folder = sweep(tmp_path / "a", *points, point("branch", fork=("going", 6)), retries=1)
    states = States(folder)
    by_name = {p.name: p for p in folder.points}
    facts = {"steps": 10, "seconds": 18.0, "overhead_seconds": 2.0, "loss": 2.5, "worker": "w"}
    states.write_done(by_name["finished"], facts)
    held_elsewhere(folder, "going", number=3, time=time.time())
    rows = [train_row(2, 0.5, 4.0), train_row(4, 0.5, 3.25)]
    text = "\n".join(map(json.dumps, rows)) + '\n{"step": 5, "spl'
    storage.write_whole(folder.run_directory(by_name["going"]) / "metrics.jsonl", text)
    for _ in range(2):
        states.write_failure(by_name["broken"], {"why": "A=1 is wrong."})
    states.write_failure(by_name["again"], {"why": "Once."})
    held_elsewhere(folder, "lost", time=time.time() - 3 * EXPIRY)
    return folder


def test_the_table(folder, capsys):
    assert main(["sweep", "status", f"--sweep_dir={folder.path}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[:-2]] == [
        ["point", "state", "step", "loss", "time"],
        ["A='finished'", "done", "10", "of", "10", "2.5000", "0:18"],
        ["A='going'", "running", "4", "of", "10", "3.2500", "7", "on", "elsewhere"],
        ["A='broken'", "failed", "A=1", "is", "wrong."],
        ["A='again'", "waiting", "Once."],
        ["A='lost'", "waiting"],
        ["A='branch'", "waiting", "begins", "at", "step", "6", "of", "going"],
    ]
    # 5 FLOPs a second; 60 are left of going, 40 of branch, and 100 each of two.
    assert lines[-1] == "1 of 6 points done, 1 running, 1 failed, 3 waiting; about 1:00 left"


def test_as_json(folder, capsys):
    assert main(["sweep", "status", f"--sweep_dir={folder.path}", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    points = said.pop("points")
    assert said == {
        "name": "made_up",
        "sweep_dir": str(folder.path),
        "done": 1,
        "running": 1,
        "failed": 1,
        "waiting": 3,
        "seconds_left": 60.0,
    }
    going = {p["name"]: p for p in points}["going"]
    assert (going["step"], going["steps"], going["loss"]) == (4, 10, 3.25)


def test_before_anything_is_done_the_time_is_of_what_runs(tmp_path):
    folder = sweep(tmp_path, "a", "b")
    assert Status.read(States(folder)).seconds_left is None
    held_elsewhere(folder, "a", time=time.time())
    path = folder.run_directory(folder.points[0]) / "metrics.jsonl"
    storage.write_whole(path, json.dumps(train_row(5, 0.5, 3.0)) + "\n")
    # 10 FLOPs a step, 5 a second; 50 and 100 are left.
    assert Status.read(States(folder)).seconds_left == 30.0


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_watching_draws_in_place_or_says_what_changed(folder, monkeypatch):
    terminal, said = Terminal(), []
    drawn, plain = (
        watching.Watching(folder, said.append, stream) for stream in (terminal, io.StringIO())
    )
    drawn.show()
    plain.show()
    assert terminal.getvalue().count("A='finished'") == 1
    assert said[0] == "finished is done: loss 2.5000 after 10 steps"
    assert said[2] == "broken is failed: A=1 is wrong."
    said.clear()
    by_name = {p.name: p for p in folder.points}
    States(folder).write_done(by_name["lost"], {"loss": 1.5})
    drawn.show()
    plain.show()
    assert said[0] == "lost is done: loss 1.5000 after 10 steps"
    assert terminal.getvalue().count("\x1b[9A\r") == 1  # back to the head of a table of 9 lines
    for name in ("going", "again", "branch"):
        assert not plain.look()
        States(folder).write_done(by_name[name], {"worker": "w"})
        plain.show()
    assert plain.look()


def test_it_needs_neither_jax_nor_gin(folder):
    program = (
        "import sys; from switchx.cli.main import main; "
        f"main(['sweep', 'status', '--sweep_dir={folder.path}']); "
        "sys.exit('jax' in sys.modules or 'gin' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE).returncode == 0


def test_mistakes(tmp_path, capsys):
    said = {
        f"--sweep_dir={tmp_path}": "holds no sweep.json, so no sweep was planned there",
        "--json --watch": "--json and --watch are two ways to show it: leave one out.",
        f"--sweep_dir={tmp_path} --gin.SEED=1": "--gin.SEED=1 does nothing in `switchx sweep stat",
        "--model_dir=x": "--model_dir=x is not for sweeps, whose points have each their own",
        "--process_id=1": "--process_id=1 is for several hosts, and `switchx sweep status` runs",
        "--slots=2": "--slots is not for `switchx sweep status`: leave it out.",
    }
    for flags, sentence in said.items():
        assert main(["sweep", "status", *flags.split()]) == 2
        assert sentence in capsys.readouterr().err
    assert main(["sweep", "run", "--slots=0"]) == 2
    assert "--slots=0 must be a whole number of at least 1." in capsys.readouterr().err


def test_gpus_are_shared_out_among_slots_and_cores_are_not():
    assert environments(2, []) == [{}, {}]
    shared = environments(2, ["0", "1", "2", "3", "4"])
    assert [own["CUDA_VISIBLE_DEVICES"] for own in shared] == ["0,1", "2,3"]
    crowded = environments(3, ["4", "6"])
    assert [own["CUDA_VISIBLE_DEVICES"] for own in crowded] == ["4", "6", "4"]
    assert [own["XLA_PYTHON_CLIENT_MEM_FRACTION"] for own in crowded] == ["0.45", "0.90", "0.45"]
    assert gpus({"CUDA_VISIBLE_DEVICES": "3,5"}) == ["3", "5"]
    assert gpus({"CUDA_VISIBLE_DEVICES": "-1"}) == gpus({"JAX_PLATFORMS": "cpu"}) == []


def test_what_somebody_wrote_into_a_file_of_what_is_done(tmp_path, capsys):
    """Numbers that are none, or not finite, are as if they were not there."""
    folder = sweep(tmp_path / "a", point("edited"))
    facts = '{"seconds": NaN, "overhead_seconds": 1e400, "loss": "2.5", "worker": "w"}'
    storage.write_whole(folder.state_directory(folder.points[0]) / "done.json", facts)
    assert main(["sweep", "status", f"--sweep_dir={folder.path}"]) == 0
    assert capsys.readouterr().out.split("\n")[1].split() == [
        "A='edited'",
        "done",
        "10",
        "of",
        "10",
    ]
