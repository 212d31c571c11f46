"""How points are worked through, by workers whose runs are made up."""

import json
import os
import signal

import pytest

from switchx import storage
from switchx.errors import RunError, UserError
from switchx.sweeps import worker
from switchx.sweeps.claims import EXPIRY
from switchx.sweeps.states import States
from switchx.sweeps.worker import Outcome, work

from .made_up import Clock, desk_of, held_elsewhere, point, state_files, sweep

WELL = Outcome(None, 10, 2.5, 4.0, 1.0)


class Runs:
    """A runner that does what is next in the plan for a point, and ends well where none is."""

    def __init__(self, **plan):
        self.plan = {name: list(doings) for name, doings in plan.items()}
        self.order = []

    def __call__(self, point):
        self.order.append(point.name)
        doing = (self.plan.get(point.name) or [WELL]).pop(0)
        if isinstance(doing, BaseException):
            raise doing
        return doing() if callable(doing) else doing


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    """Waiting takes no time: it turns the clock that claims are watched by."""
    clock = Clock()

    def sleep(seconds):
        clock.now += seconds

    monkeypatch.setattr(worker.time, "sleep", sleep)
    return clock


def done(folder):
    return {n for n, s in States(folder).read().items() if s.done is not None}


def why(folder, name, number=0):
    file = folder.path / "state" / name / f"failed.{number}.json"
    return json.loads(storage.read_bytes(file, "X"))["why"]


def test_longest_first_or_as_listed_and_each_once(tmp_path):
    points = (point("a", 1), point("b", 3), point("c", 2))
    for order, expected in (("longest", ["b", "c", "a"]), ("listed", ["a", "b", "c"])):
        folder = sweep(tmp_path / order, *points, order=order)
        runs = Runs()
        assert work(folder, desk_of(folder), runs, "me", print) is None
        assert runs.order == expected
        again = Runs()
        work(folder, desk_of(folder), again, "me", print)
        assert again.order == []
        said = json.loads((tmp_path / order / "state" / "a" / "done.json").read_text())
        assert said.pop("time") > 0
        assert said == {
            "steps": 10,
            "seconds": 4.0,
            "overhead_seconds": 1.0,
            "loss": 2.5,
            "worker": "me",
        }


def test_what_fails_is_tried_again_after_the_rest_and_stops_nothing(tmp_path):
    folder = sweep(tmp_path, "a", "b", "c", retries=2)
    wrong = [UserError("A=1 is wrong."), RunError("The loss is bad."), ValueError("odd\nthing")]
    runs = Runs(a=wrong, b=[RunError("Once.")])
    desk = desk_of(folder)
    assert work(folder, desk, runs, "me", print) is None
    assert runs.order == ["a", "b", "c", "b", "a", "a"] or runs.order == list("abcaba")
    assert done(folder) == {"b", "c"}
    assert desk.states.failed(desk.states.read()["a"])
    assert why(folder, "a", 0) == "A=1 is wrong."
    assert why(folder, "a", 1) == "The loss is bad."
    assert why(folder, "a", 2) == "ValueError: odd"
    assert "a failed, try 3 of 3: ValueError: odd" in desk.said

    desk.states.forget_failed()
    work(folder, desk_of(folder), Runs(), "me", print)
    assert done(folder) == {"a", "b", "c"}


def test_or_the_first_that_fails_for_good_stops_the_sweep(tmp_path):
    folder = sweep(tmp_path, "a", "b", retries=0, on_failure="stop")
    runs = Runs(a=[UserError("A=1 is wrong.")])
    work(folder, desk_of(folder), runs, "me", print)
    assert runs.order == ["a"]
    work(folder, desk_of(folder), runs, "another", print)
    assert runs.order == ["a"]


def test_a_point_in_living_hands_is_left_and_one_in_dead_hands_taken_over(tmp_path, quickly):
    """The living one writes its claim anew while the worker looks; the other never does."""
    folder = sweep(tmp_path, "dead", "living")
    held_elsewhere(folder, "dead")
    beats = iter(range(1000))

    def sleep(seconds):
        quickly.now += seconds
        held_elsewhere(folder, "living", beat=next(beats))

    sleep(0)
    worker.time.sleep = sleep  # undone by the fixture's monkeypatch
    runs, began = Runs(), quickly.now
    desk = desk_of(folder, quickly)
    assert work(folder, desk, runs, "me", print) is None
    assert runs.order == ["dead"]
    assert EXPIRY <= quickly.now - began < 2 * EXPIRY
    assert desk.left.held == {"living": "7 on elsewhere"}


def test_a_fork_waits_for_its_trunk_while_other_points_are_done(tmp_path, quickly):
    trunk, fork = point("trunk", 9), point("fork", 8, fork=("trunk", 5))
    folder = sweep(tmp_path, trunk, fork, "other", order="longest")
    reached = []
    held_elsewhere(folder, "trunk")
    looks = iter(range(1000))

    def sleep(seconds):
        quickly.now += seconds
        look = next(looks)
        held_elsewhere(folder, "trunk", beat=look)
        if look == 100:
            reached.append("step 5")

    worker.time.sleep = sleep
    runs = Runs()
    desk = desk_of(folder, quickly, forkable=lambda point: bool(reached))
    work(folder, desk, runs, "me", print)
    assert runs.order == ["other", "fork"]
    assert done(folder) == {"other", "fork"}


def test_a_fork_whose_trunk_failed_for_good_runs_from_the_start(tmp_path):
    trunk, fork = point("trunk", 9), point("fork", 8, fork=("trunk", 5))
    folder = sweep(tmp_path, trunk, fork, retries=0)
    runs = Runs(trunk=[RunError("The loss is bad.")])
    work(folder, desk_of(folder), runs, "me", print)
    assert runs.order == ["trunk", "fork"]
    assert done(folder) == {"fork"}


def test_points_for_other_devices_are_left_and_said(tmp_path):
    folder = sweep(tmp_path, "a", "b")
    desk = desk_of(folder, unfit={"a": "MESH_DATA=8 does not fit 1 device: ..."})
    runs = Runs()
    assert work(folder, desk, runs, "me", print) is None
    assert runs.order == ["b"]
    assert desk.left.unfit == {"a": "MESH_DATA=8 does not fit 1 device: ..."}
    assert state_files(folder, "a") == set()


def test_a_run_directory_in_use_is_no_failure(tmp_path):
    """As of `switchx train` by hand."""
    folder = sweep(tmp_path, "a", "b")
    runs = Runs(a=[storage.InUseError("MODEL_DIR='a' is in use by another switchx train.")] * 9)
    desk = desk_of(folder)
    assert work(folder, desk, runs, "me", print) is None
    assert runs.order == ["a", "b"]
    assert not {name for name in state_files(folder, "a") if name.startswith("failed")}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_run_that_was_stopped_is_given_back(tmp_path, number):
    folder = sweep(tmp_path, "a", "b")
    stopped, said = Outcome(number, 5, None, 2.0, 1.0), []
    assert work(folder, desk_of(folder), Runs(a=[stopped]), "me", said.append) == number
    assert said[-1] == "a is stopped at step 5 of 10; `switchx sweep run` goes on from there"
    runs = Runs()
    work(folder, desk_of(folder), runs, "another", print)  # at once: no clock was turned
    assert runs.order == ["a", "b"]


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)
def test_and_so_is_one_that_could_not_save_yet(tmp_path, number, raised):
    folder = sweep(tmp_path, "a", "b")

    def starting():
        os.kill(os.getpid(), number)
        raise AssertionError("it goes on")

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(raised) as ended:
        work(folder, desk_of(folder), Runs(a=[starting]), "me", print)
    if raised is SystemExit:
        assert ended.value.code == 128 + number
    assert signal.getsignal(signal.SIGTERM) == before
    runs = Runs()
    work(folder, desk_of(folder), runs, "another", print)
    assert runs.order == ["a", "b"]


def test_a_point_of_which_nothing_can_be_written_down_is_given_back(tmp_path, monkeypatch):
    """As on a full disk; the worker ends, saying also why the point failed."""
    folder, made = sweep(tmp_path, "a"), storage.create_once

    def full(path, *rest):
        if "failed" in path.name:
            raise RunError(f"{path.name} cannot be written (No space left on device).")
        return made(path, *rest)

    monkeypatch.setattr(storage, "create_once", full)
    why = r"a failed \(A=1 is wrong.\), and failed.0.json cannot be written \(No space left"
    with pytest.raises(RunError, match=why):
        work(folder, desk_of(folder), Runs(a=[UserError("A=1 is wrong.")]), "me", print)
    work(folder, desk_of(folder), Runs(), "another", print)  # at once: no clock was turned
    assert done(folder) == {"a"}


def test_an_empty_file_of_what_is_done_says_nothing(tmp_path):
    folder = sweep(tmp_path, "a")
    storage.write_whole(folder.state_directory(folder.points[0]) / "done.json", "")
    assert done(folder) == set()
    runs = Runs()
    work(folder, desk_of(folder), runs, "me", print)
    assert (runs.order, done(folder)) == (["a"], {"a"})


def test_done_is_written_once(tmp_path):
    folder = sweep(tmp_path, "a")
    states = States(folder)
    assert states.write_done(folder.points[0], {"worker": "first"})
    assert not states.write_done(folder.points[0], {"worker": "second"})
    assert States(folder).read()["a"].done == {"worker": "first"}


def test_a_worker_of_another_version_is_refused_while_one_lives(tmp_path, quickly):
    folder = sweep(tmp_path, "a", "b")
    held_elsewhere(folder, "b", switchx="0.9", code="c0de")
    beats = iter(range(1, 1000))

    def beating(seconds):
        quickly.now += seconds
        held_elsewhere(folder, "b", next(beats), switchx="0.9", code="c0de")

    desk = desk_of(folder, quickly)
    says = (
        r"SWEEP_DIR='.*' has b claimed by a worker of another version, switchx 0.9 \(c0de\), "
        r"process 7 on elsewhere, and this is switchx 1 \(a\): wait for its end or stop it"
    )
    with pytest.raises(UserError, match=says):
        desk.check_versions(beating)
    assert "watching for up to 120 s whether its worker lives" in desk.said[0]

    def silent(seconds):
        quickly.now += seconds

    desk_of(folder, quickly).check_versions(silent)  # it has died meanwhile
    held_elsewhere(folder, "b", 0)
    desk_of(folder, quickly).check_versions(silent)  # of the same version
