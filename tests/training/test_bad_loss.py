"""Bad losses: what counts as one, and how a run goes back and on behind the bad batch."""

import dataclasses
import functools
import os
import signal

import numpy as np
import pytest

from switchx.errors import RunError, UserError
from switchx.reports import pictures
from switchx.training import TrainerConfig, bad_loss, train
from switchx.training.bad_loss import WINDOW, LossWatch
from switchx.training.checkpoints.identity import saved_steps
from switchx.training.not_finite import Inquiry
from switchx.training.run_reader import metric_rows
from tests.training.helpers import SMALL, Stream, assert_same_end, feed, run_config, train_losses

SKIP = {**SMALL, "on_bad_loss": "skip", "train_steps": 6}
pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_looked_into(one_device):
    """tests/training/test_not_finite.py does, and compiles for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Inquiry, "look_into", lambda *_: "")
        yield


def stream_without(bad=(), left_out=(), stop_at=None):
    """Batches 0, 1, 2, ... of which some give a loss that is not finite and some are left out."""

    class Broken(Stream):
        def __next__(self):
            while self.number in left_out:
                self.number += 1
            if self.number == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            found = super().__next__()
            if self.number - 1 in bad:
                found["decoder_loss_weights"] = found["decoder_loss_weights"] * np.nan
            return found

    return Broken


def go(directory, stream, **changes):
    run = run_config(**{**SKIP, **changes})
    return train(run, str(directory), feed(stream), "# none\n")


def rollbacks(directory):
    return [
        tuple(r[name] for name in ("step", "from", "to", "batches_skipped", "loss"))
        for r in metric_rows(directory)
        if r["split"] == "rollback"
    ]


def check_same_end(directory, other):
    assert_same_end(directory, other, run_config(**SKIP))


@pytest.fixture(scope="module")
def once(tmp_path_factory, one_device):
    """Runs that skip a batch and are not disturbed, made when they are asked for."""

    @functools.cache
    def make(bad):
        directory = tmp_path_factory.mktemp("once")
        go(directory, stream_without(bad=[bad]))
        return directory

    return make


def test_a_run_that_skips_equals_one_that_never_had_these_batches(once, tmp_path, capfd):
    """Batch 3 is bad (step 4): back to step 2, without batches 2 and 3."""
    skips = once(3)
    assert rollbacks(skips) == [(3, 4, 2, 2, None)]
    said = "The loss at step 4 is not finite (sum nan, gradient norm nan): back to step 2, and on "
    said += "without the 2 batches up to it (rollback 1 of at most 3)"
    assert said in capfd.readouterr().err
    go(tmp_path / "without", stream_without(left_out=[2, 3]))
    check_same_end(skips, tmp_path / "without")
    assert len(pictures.draw(skips)) == 1


def test_back_to_the_start_and_twice_to_the_same_checkpoint(tmp_path):
    """Batches 0 and 2 are bad before anything is saved; so is batch 5, after steps of 3 and 4."""
    go(tmp_path / "skips", stream_without(bad=[0, 2, 5]))
    assert rollbacks(tmp_path / "skips") == [
        (1, 1, 0, 1, None),
        (1, 2, 0, 3, None),
        (3, 3, 2, 1, None),
    ]
    go(tmp_path / "without", stream_without(left_out=[0, 1, 2, 5]))
    check_same_end(tmp_path / "skips", tmp_path / "without")


@pytest.mark.parametrize(("bad", "stop_at"), [(3, 0), (3, 2), (3, 3), (3, 7), (1, 0)])
def test_stopped_and_resumed_it_ends_the_same(bad, stop_at, once, tmp_path):
    """What is saved where a run is stopped, here at odd steps, is not what it rolls back to.

    It is stopped before and at the bad batch and behind the next checkpoint; the last one rolls
    back to the start.
    """
    stopping = stream_without(bad=[bad], stop_at=stop_at)
    stopped = go(tmp_path, stopping, keep_checkpoints=1)
    assert stopped.stopped_by == signal.SIGTERM
    go(tmp_path, stream_without(bad=[bad]), keep_checkpoints=1)
    check_same_end(tmp_path, once(bad))
    assert rollbacks(tmp_path) == rollbacks(once(bad))


def test_after_so_many_rollbacks_it_stops(tmp_path):
    says = r"step 3 is not finite .*checkpoint is of step 2, and MAX_ROLLBACKS=2 are spent"
    with pytest.raises(RunError, match=says):
        go(tmp_path, stream_without(bad=range(2, 99)), max_rollbacks=2)
    assert saved_steps(tmp_path) == [2]
    assert [row[1:4] for row in rollbacks(tmp_path)] == [(3, 2, 1), (3, 2, 2)]


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_is_bad_as_a_loss_is(wrong):
    watch = LossWatch(TrainerConfig(1))
    assert watch.look_at(1, 2.0, 2.0, 3.0) is None
    assert watch.look_at(2, 2.0, wrong, 3.0).why.startswith("is not finite")
    assert watch.look_at(2, 2.0, 2.0, wrong).why.startswith("is not finite")
    assert watch.losses == (2.0,)


def test_a_spike_is_measured_from_the_mean_of_the_steps_before():
    config = TrainerConfig(train_steps=1, loss_spike=2.0)
    watch = LossWatch(config)
    values = [5 + np.sin(n) for n in range(WINDOW + 20)]
    for step, loss in enumerate(values[:WINDOW]):
        assert watch.look_at(step, loss + 99 * (step == 0), 1.0, 1.0) is None
    mean = (sum(values[:WINDOW]) + 99) / WINDOW
    assert watch.look_at(100, mean + 1.99, 1.0, 1.0) is None  # now one of them, and not the first
    mean = (sum(values[1:WINDOW]) + mean + 1.99) / WINDOW
    bad = watch.look_at(101, mean + 2.01, 1.0, 1.0)
    assert bad.why.endswith(
        f"and {mean:.4f} in the mean of the 100 steps before it (LOSS_SPIKE=2.0)"
    )
    assert LossWatch(config, watch.losses).look_at(101, mean + 2.01, 1.0, 1.0) == bad
    assert LossWatch(TrainerConfig(1), watch.losses).look_at(101, 1e9, 1.0, 1.0) is None


def test_a_resumed_run_sees_the_spike_that_an_undisturbed_one_sees(tmp_path, monkeypatch):
    """The losses before the checkpoint are a part of it."""
    monkeypatch.setattr(bad_loss, "WINDOW", 4)

    class Spiky(Stream):
        def __next__(self):
            found = super().__next__()
            if self.number == 6:  # step 6: targets that the inputs say nothing of
                found["decoder_target_tokens"] = np.roll(found["decoder_target_tokens"], 1, 0)
            return found

    spike = {"loss_spike": 1e-3, "train_steps": 8, "learning_rate": 0.3}
    go(tmp_path / "once", Spiky, **spike)
    go(tmp_path / "twice", Spiky, **{**spike, "train_steps": 4})
    go(tmp_path / "twice", Spiky, **spike)
    assert rollbacks(tmp_path / "once")
    assert rollbacks(tmp_path / "twice") == rollbacks(tmp_path / "once")
    assert train_losses(tmp_path / "twice") == train_losses(tmp_path / "once")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"on_bad_loss": "ignore"}, "ON_BAD_LOSS='ignore' is not one of stop, skip"),
        ({"loss_spike": 0.0}, "LOSS_SPIKE=0.0 must be above 0, or None"),
        ({"loss_spike": float("nan")}, "LOSS_SPIKE=nan must be above 0, or None"),
        ({"max_rollbacks": 0}, "MAX_ROLLBACKS=0 must be a whole number of at least 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes, says):
    with pytest.raises(UserError, match=says):
        dataclasses.replace(TrainerConfig(train_steps=1), **changes)
