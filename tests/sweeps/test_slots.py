"""The workers of one machine, with `sleep` in their place."""

import signal
import time

import pytest

from switchx.errors import RunError
from switchx.sweeps.slots import Slots


@pytest.mark.parametrize("moment", ["before it is known", "while all run"])
def test_a_signal_reaches_every_worker_whenever_it_comes(moment, tmp_path, monkeypatch):
    """One that came while a worker was being started was lost on it, and on those after it."""
    began, said = time.monotonic(), []
    slots = Slots(["sleep", "600"], tmp_path / "logs", said.append)
    start, started = slots._start, []

    def starting(slot, own):
        started.append(start(slot, own))
        if slot == 1 and moment == "before it is known":
            signal.raise_signal(signal.SIGTERM)
        return started[-1]

    def between():
        if moment == "while all run" and not slots._signals:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(slots, "_start", starting)
    assert slots.run(3, between, []) == 128 + signal.SIGTERM
    assert [process.returncode for process in started] == [-signal.SIGTERM] * 3
    assert time.monotonic() - began < 300
    assert len(said) == 3
    assert all((tmp_path / "logs").iterdir())


def test_where_one_cannot_be_started_those_that_were_are_told_to_leave(tmp_path):
    slots = Slots(["sleep", "600"], tmp_path, print)
    slots.log(1).mkdir()
    with pytest.raises(RunError, match=r"-1.log cannot be written \(Is a directory\)"):
        slots.run(2, lambda: None, [])
    assert [process.wait(60) for process in slots._processes] == [-signal.SIGTERM]


def test_the_status_is_that_of_the_worker_that_failed(tmp_path):
    said = []
    killed = ["sh", "-c", "kill -9 $$"]
    assert Slots(killed, tmp_path, [].append).run(1, lambda: None, []) == 128 + signal.SIGKILL
    slots = Slots(["false"], tmp_path, said.append)
    assert slots.run(2, lambda: None, []) == 1
    assert [line.split(":")[0] for line in said] == [
        f"worker {n} ended with status 1" for n in (0, 1)
    ]
