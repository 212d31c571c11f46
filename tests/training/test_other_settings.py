"""Going on with other settings: what changes nothing that was saved, and what begins anew."""

import dataclasses
import json
import os
import shutil
import signal

import jax
import numpy as np
import pytest

from switchx.errors import RunError, UserError
from switchx.training import BatchShape, train
from switchx.training.resets import Resets
from switchx.training.run_reader import metric_rows
from tests.training.helpers import (
    BATCH,
    INPUTS,
    SMALL,
    TARGETS,
    Stream,
    assert_same_end,
    batch,
    feed,
    params_of,
    run_config,
)

pytestmark = pytest.mark.usefixtures("one_device")
ADAMW = {"name": "adamw", "learning_rate": 1e-3}


def go(directory, stream=Stream, **changes):
    return train(run_config(**{**SMALL, **changes}), str(directory), feed(stream), "# none\n")


def noting(rows):
    """A stream that notes the number of each batch that is taken."""

    class Noting(Stream):
        def __next__(self):
            rows.append(self.number)
            return super().__next__()

    return Noting


class Failing(Stream):
    """The run begins, and ends before its first step."""

    def __next__(self):
        raise RunError("the data is gone.")


@pytest.fixture(scope="module")
def begun(tmp_path_factory, one_device):
    """Two steps. Not to be written to."""
    directory = tmp_path_factory.mktemp("begun") / "run"
    go(directory, train_steps=2)
    return directory


@pytest.fixture
def run(begun, tmp_path):
    return shutil.copytree(begun, tmp_path / "run")


def test_what_an_optimizer_does_to_gradients_may_change(run):
    """Neither has a state, and none of what is saved of it stands in its way, there and back."""
    assert go(run, train_steps=3, clip_global_norm=1.0, weight_decay=0.1).first_step == 2
    assert go(run, train_steps=4).first_step == 3


def test_another_optimizer_goes_on_with_the_parameters_where_that_is_asked_for(run, capfd):
    before = params_of(run, run_config(**{**SMALL, "train_steps": 2}))
    with pytest.raises(UserError, match=r"set 'adafactor', keep .* --gin\.RESET_OPTIMIZER=True"):
        go(run, **ADAMW)
    with pytest.raises(RunError, match="the data is gone"):
        go(run, Failing, **ADAMW, reset_optimizer=True)
    assert "the optimizer's state is fresh at step 2 (RESET_OPTIMIZER)" in capfd.readouterr().err
    after = params_of(run, run_config(**{**SMALL, **ADAMW, "train_steps": 2}))
    jax.tree.map(np.testing.assert_array_equal, before, after)
    whole = shutil.copytree(run, run.parent / "whole")

    go(whole, **ADAMW)  # what config.gin says: the step is noted, whatever was saved since
    go(run, **ADAMW, train_steps=4, reset_optimizer=True)  # a launcher's command, once more
    capfd.readouterr()
    go(run, **ADAMW, reset_optimizer=True)
    said = "RESET_OPTIMIZER=True was done at step 2 and is not done again"
    assert said in capfd.readouterr().err
    assert_same_end(run, whole, run_config(**{**SMALL, **ADAMW}))
    rows = {row["step"]: row for row in metric_rows(run) if row["split"] == "train"}
    assert rows[3]["learning_rate"] == pytest.approx(1e-4)  # of step 3: 1e-3 / sqrt(100)


def test_data_that_begins_anew_does_so_once(run, capfd):
    first, second, third = [], [], []
    with pytest.raises(RunError, match="the data is gone"):
        go(run, Failing, reset_data=True)
    assert "the data begins anew at step 2 (RESET_DATA)" in capfd.readouterr().err
    go(run, noting(first), train_steps=4)
    go(run, noting(second), train_steps=5)
    go(run, noting(third), reset_data=True)
    assert (first[:2], second[:1], third[:1]) == ([0, 1], [2], [0])
    noted = json.loads((run / "run.json").read_text())["resets"]
    assert noted == {"data": 5, "optimizer": -1, "asked": ["data"]}
    assert Resets.of(run) == Resets(5, -1, ("data",))


@pytest.mark.parametrize(
    "noted", ["[]", "7", '{"data": "2"}', '{"more": 1}', '{"asked": 3}', '{"asked": [[]]}']
)
def test_a_note_that_no_run_made_is_damage(noted, tmp_path):
    (tmp_path / "run.json").write_text(f'{{"format": 1, "switchx": "0.2", "resets": {noted}}}')
    with pytest.raises(UserError, match=r"has a damaged run\.json"):
        Resets.of(tmp_path)


def test_a_command_that_goes_on_asking_is_not_answered_again(tmp_path):
    """A launcher starts it over and over: also where it asked before there was anything."""
    taken = []
    for steps in (2, 3, 4):
        go(tmp_path, noting(taken), train_steps=steps, reset_data=True)
    assert list(dict.fromkeys(taken)) == [0, 1, 2, 3]


def other_data(position):
    raise UserError("SEED=1, but the data was read with 0.")


def test_data_of_other_settings_begins_anew_even_if_it_did_so_before(run):
    """The start before asked too, and what it asked for is done: this is something else."""
    go(run, train_steps=3, reset_data=True)
    config = run_config(**{**SMALL, "train_steps": 5, "reset_data": True})
    with pytest.raises(UserError, match="SEED=1"):
        train(run_config(**SMALL), str(run), dataclasses.replace(feed(), check_position=other_data))
    taken = []
    train(config, str(run), dataclasses.replace(feed(noting(taken)), check_position=other_data))
    assert taken[0] == 0
    assert Resets.of(run) == Resets(3, -1, ("data",))


class Rows(Stream):
    """The rows of the same batches in batches of another size; its position counts rows."""

    size, bad, stop_at = BATCH, (), None
    seen: list[int]

    def __next__(self):
        at = range(self.number, self.number + self.size)
        if self.number == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        self.seen.append(self.number)
        self.number += self.size
        found = [(batch(n // BATCH), n % BATCH) for n in at]
        whole = {name: np.stack([of[name][row] for of, row in found]) for name in found[0][0]}
        if at[0] in self.bad:
            whole["decoder_loss_weights"] = whole["decoder_loss_weights"] * np.nan
        return whole

    def skip(self, examples):
        self.number += examples


def rows(**of):
    return type("Some", (Rows,), {"seen": [], **of})


def test_a_rollback_over_a_change_of_batch_size_leaves_out_the_examples_up_to_the_bad_one(tmp_path):
    """Steps of 16 up to 3, then of 8: step 4 is bad, and step 2 is what it goes back to."""
    skip = {"on_bad_loss": "skip", "eval_batch": BatchShape(BATCH, INPUTS, TARGETS)}
    stopped = go(tmp_path, rows(stop_at=32), **skip)
    assert (stopped.step, stopped.stopped_by) == (3, signal.SIGTERM)
    small = rows(size=8, bad=[48])
    go(tmp_path, small, **skip, batch=BatchShape(8, INPUTS, TARGETS))
    (row,) = [row for row in metric_rows(tmp_path) if row["split"] == "rollback"]
    assert (row["from"], row["to"], row["batches_skipped"]) == (4, 2, 2)
    assert small.seen == [48, 56, 64, 72, 80]
