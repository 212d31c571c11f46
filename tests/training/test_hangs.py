"""Hangs: when something has taken too long, what is said of it, and what is none."""

import ctypes
import faulthandler
import io
import os
import re
import sys
import threading
import time

import pytest

from switchx import storage
from switchx.training import hangs, train
from switchx.training.hangs import EVALUATION, STEP, HangWatch
from tests.training.helpers import SMALL, Stream, feed, run_config

pytestmark = pytest.mark.usefixtures("one_device")
WAKE = 15.0  # seconds between two looks


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def watched(tmp_path):
    """A watch that looks when it is told to, its clock, and a function that lets time pass."""
    clock = Clock()
    watch = HangWatch(tmp_path, clock)

    def passes(seconds):
        for _ in range(round(seconds / WAKE)):
            clock.now += WAKE
            watch._look()

    return watch, clock, passes


def steps(watch, clock, seconds, count):
    for _ in range(count):
        watch.begin(STEP)
        clock.now += seconds
    watch.begin(STEP)


def test_a_hang_is_said_once_with_what_it_is_at(watched, tmp_path, capfd):
    watch, clock, passes = watched
    steps(watch, clock, 30.0, 9)
    watch.part = "waiting for data"
    passes(600)
    assert capfd.readouterr().err == ""
    passes(3000)
    file = tmp_path / "stacks.0.txt"
    says = "no step has ended for 10 min, 20 times the usual 30 s: waiting for data"
    line = f"switchx: {says}; every thread's stack is in {file}, and the run waits on\n"
    assert capfd.readouterr().err == line
    head, stacks = file.read_text().split("\n", 1)
    assert head.endswith(f" UTC: {says}")
    assert "in test_a_hang_is_said_once_with_what_it_is_at" in stacks
    assert "MainThread" in stacks


def test_each_hang_is_said(watched, tmp_path, capfd):
    watch, clock, passes = watched
    steps(watch, clock, 1.0, 9)
    passes(330)
    steps(watch, clock, 1.0, 9)
    passes(330)
    assert capfd.readouterr().err.count("no step has ended for 5 min, 315 times the usual 1 s") == 2
    assert (tmp_path / "stacks.0.txt").read_text().count("no step has ended") == 2


def test_what_is_no_hang(watched, capfd):
    watch, clock, passes = watched
    watch.begin(STEP)
    passes(3600)  # the first step, a slow machine's
    steps(watch, clock, 200.0, 9)
    passes(3900)  # slow, but not twenty times as slow
    watch.begin(EVALUATION)
    passes(3600)  # a long one, that compiles first
    watch.begin(STEP)
    passes(WAKE)
    clock.now += 10**6  # the process was stopped, or the machine asleep
    watch._look()
    passes(3900)
    assert capfd.readouterr().err == ""


def test_something_that_is_not_a_step(watched, capfd):
    watch, _, passes = watched
    watch.begin(EVALUATION)
    passes(4000)
    assert (
        "switchx: an evaluation has not ended for 60 min; every thread's" in capfd.readouterr().err
    )


def test_where_the_runs_own_files_hang_the_stacks_lie_elsewhere(watched, monkeypatch, capfd):
    watch, clock, passes = watched
    monkeypatch.setattr(hangs, "_WRITE_SECONDS", 0.01)
    free = threading.Event()
    monkeypatch.setattr(storage, "write_whole", lambda *_: free.wait(60))
    steps(watch, clock, 1.0, 9)
    passes(330)
    free.set()
    path = re.search(r"stack is in (\S+),", capfd.readouterr().err)[1]
    with open(path) as file:
        assert "MainThread" in file.read()
    os.unlink(path)


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)


def test_a_run_whose_data_does_not_come_says_so_and_goes_on(tmp_path, monkeypatch, capfd):
    """The stream comes to itself once the stacks name it."""
    monkeypatch.setattr(hangs, "LEAST", 0.05)
    monkeypatch.setattr(hangs, "FIRST", 0.05)
    monkeypatch.setattr(hangs, "TIMES", 1)
    file = tmp_path / "stacks.0.txt"

    def is_said():
        return file.exists() and "in which_does_not_come" in file.read_text()

    def which_does_not_come():
        wait_for(is_said)

    class Stuck(Stream):
        def __next__(self):
            if self.number == 3:
                which_does_not_come()
            return super().__next__()

    result = train(run_config(**SMALL), str(tmp_path), feed(Stuck), "# none\n")
    assert result.step == 6
    assert is_said()
    said = [line for line in file.read_text().splitlines() if " UTC: " in line]
    assert any(line.endswith(": waiting for data") for line in said)
    assert "; every thread's stack is in" in capfd.readouterr().err


def test_stacks_are_shown_where_a_library_holds_pythons_lock(tmp_path, monkeypatch):
    """No thread of Python's can say anything then; here until there is something to read."""
    monkeypatch.setattr(hangs, "LEAST", 0.1)
    out, into = os.pipe()
    with os.fdopen(into, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        HangWatch(tmp_path)._await_python()
        asked = (ctypes.c_int * 2)(out, 1)  # struct pollfd: `out` can be read
        ready = ctypes.PyDLL(None).poll(asked, 1, 60_000)
        faulthandler.cancel_dump_traceback_later()
    assert ready == 1
    assert os.read(out, 100).startswith(b"Timeout (")
    os.close(out)


def test_a_stream_without_a_file_is_no_obstacle(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    HangWatch(tmp_path)._await_python()
