"""The workers of one machine, with `sleep` in their place."""

import signal
import time

import pytest

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


def test_the_status_is_that_of_the_worker_that_failed(tmp_path):
    said = []
    slots = Slots(["false"], tmp_path, said.append)
    assert slots.run(2, lambda: None, []) == 1
    assert [line.split(":")[0] for line in said] == [
        f"worker {n} ended with status 1" for n in (0, 1)
    ]
