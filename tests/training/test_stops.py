"""How a run ends early and goes on bitwise: signals, a closed pipe, bad losses, damaged files."""

import contextlib
import os
import signal
import sys

import numpy as np
import pytest

from switchx.errors import RunError
from switchx.sharding import make_mesh
from switchx.training import train
from switchx.training.checkpoints.identity import saved_steps
from switchx.training.state import Setup
from tests.training.helpers import (
    SMALL,
    Stream,
    assert_same_end,
    checkpoints_of,
    feed,
    run_config,
)

pytestmark = pytest.mark.usefixtures("one_device")


def go(directory, stream=Stream):
    return train(run_config(**SMALL), directory, feed(stream), "# none\n")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, one_device):
    directory = tmp_path_factory.mktemp("undisturbed")
    go(directory)
    return directory


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_saves_at_the_next_step_and_resumes_bitwise(number, tmp_path, undisturbed):
    class Interrupted(Stream):
        def __next__(self):
            if self.number == 2:
                os.kill(os.getpid(), number)
            return super().__next__()

    before = signal.getsignal(number)
    result = go(tmp_path, Interrupted)
    assert (result.step, result.stopped_by) == (3, number)
    assert signal.getsignal(number) == before
    assert saved_steps(tmp_path)[-1] == 3
    go(tmp_path)
    assert_same_end(tmp_path, undisturbed, run_config(**SMALL))


def test_a_loss_that_is_not_finite_stops_the_run_and_is_never_saved(tmp_path):
    class Broken(Stream):
        def __next__(self):
            found = super().__next__()
            if self.number == 4:
                found["decoder_loss_weights"] = found["decoder_loss_weights"] * np.nan
            return found

    with pytest.raises(RunError, match=r"step 4 is not finite.*checkpoint is of step 2"):
        go(tmp_path, Broken)
    assert saved_steps(tmp_path) == [2]


def test_a_reader_that_is_gone_ends_the_run_as_a_signal_does(tmp_path, monkeypatch):
    """`switchx train 2>&1 | head`: the step is saved, and the run goes on from it."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    with open(write_end, "w", encoding="utf-8") as pipe:
        monkeypatch.setattr(sys, "stderr", pipe)
        result = go(tmp_path)
        monkeypatch.undo()
        with contextlib.suppress(BrokenPipeError):
            pipe.close()
    assert (result.step, result.stopped_by) == (1, signal.SIGPIPE)
    assert saved_steps(tmp_path) == [1]


def test_a_second_ctrl_c_says_what_it_leaves(tmp_path):
    class Interrupted(Stream):
        def __next__(self):
            if self.number == 3:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
            return super().__next__()

    with pytest.raises(KeyboardInterrupt, match=r"newest checkpoint in .* is of step 2, and what"):
        go(tmp_path, Interrupted)


def test_a_damaged_checkpoint_is_passed_over(tmp_path, undisturbed, capfd):
    go(tmp_path)
    for path in (tmp_path / "checkpoints" / "6" / "params").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    result = go(tmp_path)
    assert result.step == 6
    assert "checkpoint of step 6 cannot be read" in capfd.readouterr().err
    assert saved_steps(tmp_path) == [2, 4, 6]
    assert [path.name.split("-")[0] for path in (tmp_path / "damaged").iterdir()] == ["6"]
    assert_same_end(tmp_path, undisturbed, run_config(**SMALL))


def test_the_newest_the_best_and_the_wanted_checkpoints_stay(tmp_path):
    run = run_config(**SMALL, keep_checkpoints=2, checkpoint_steps=(1, 9))
    setup = Setup.of(run, make_mesh(run.mesh))
    state, checkpoints = setup.init(), checkpoints_of(tmp_path, setup)
    losses = [{"loss": loss} for loss in (3.0, 1.0, 2.0, 2.5)]
    for step, found in enumerate([*losses, None], 1):
        at = type(state)(state.step + step, state.params, state.opt_state)
        checkpoints.save(at, {0: b"0"}, found)
    checkpoints.close()
    assert saved_steps(tmp_path) == [1, 2, 4, 5]
