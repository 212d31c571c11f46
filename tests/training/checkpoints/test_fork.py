"""A run forked from another's checkpoint is, bit by bit, the run alone."""

import json

import jax
import numpy as np
import pytest

from switchx import storage
from switchx.errors import UserError
from switchx.sharding import make_mesh
from switchx.storage import copying
from switchx.training import train
from switchx.training.checkpoints.fork import copy_checkpoint
from switchx.training.checkpoints.identity import saved_steps
from switchx.training.run_reader import metric_rows
from switchx.training.state import Setup
from tests.training.helpers import SMALL, feed, restored, run_config

pytestmark = pytest.mark.usefixtures("one_device")

FORK = 3  # where the shorter run begins to decay
WSD = {**SMALL, "schedule": "wsd", "warmup_steps": 2, "decay_share": 0.5, "checkpoint_period": 100}


def go(directory, steps, **changes):
    run = run_config(**WSD, train_steps=steps, eval_period=FORK, **changes)
    train(run, str(directory), feed())
    return restored(directory, Setup.of(run, make_mesh(run.mesh))).state


@pytest.fixture(scope="module")
def longer(one_device, tmp_path_factory):
    directory = tmp_path_factory.mktemp("longer")
    go(directory, 8, checkpoint_steps=(FORK,), keep_checkpoints=1, log_period=2)
    return directory


def test_it_ends_as_the_run_alone(longer, tmp_path):
    alone = go(tmp_path / "alone", 6, log_period=2)
    assert saved_steps(longer) == [FORK, 8]
    assert copy_checkpoint(longer, tmp_path / "forked", FORK)
    assert saved_steps(tmp_path / "forked") == [FORK]
    forked = go(tmp_path / "forked", 6, log_period=2)
    pairs = zip(jax.tree.leaves(alone), jax.tree.leaves(forked), strict=True)
    assert all(np.asarray(ours).tobytes() == np.asarray(theirs).tobytes() for ours, theirs in pairs)
    assert rows(tmp_path / "alone") == rows(tmp_path / "forked")
    record = json.loads((tmp_path / "forked/start.json").read_text())
    own = json.loads((tmp_path / "alone/start.json").read_text())
    assert record == {**own, "forked": {"path": str(longer), "step": FORK}}
    assert not copy_checkpoint(longer, tmp_path / "forked", FORK)
    assert saved_steps(tmp_path / "forked") == [FORK, 6]


def rows(directory):
    found = metric_rows(directory)
    assert [row["step"] for row in found] == [1, 2, 3, 4, 6, 6]
    free = ("time", "utilisation")
    return [
        {name: row[name] for name in row if name not in free and not name.endswith("_per_second")}
        for row in found
    ]


def test_of_a_copy_that_failed_no_checkpoint_is_left(longer, tmp_path, monkeypatch):
    copied, copy = [], copying._copy

    def break_off(source, target, setting):
        if len(copied) == 5:
            raise KeyboardInterrupt
        copied.append(target)
        copy(source, target, setting)

    with monkeypatch.context() as patch:
        patch.setattr(copying, "_copy", break_off)
        with pytest.raises(KeyboardInterrupt):
            copy_checkpoint(longer, tmp_path / "run", FORK)
    assert saved_steps(tmp_path / "run") == []
    assert list((tmp_path / "run/checkpoints").iterdir()) == []
    assert copy_checkpoint(longer, tmp_path / "run", FORK)
    assert content(tmp_path / "run") == content(longer)


def content(run):
    folder = run / "checkpoints" / str(FORK)
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_it_is_whole_in_a_bucket_only_at_the_end(longer, tmp_path, store, monkeypatch):
    """From a disk to a bucket, within that, and back."""
    seen, copy = [], copying._copy

    def look(source, target, setting):
        seen.append(saved_steps(run))
        copy(source, target, setting)

    source = longer
    for run in (f"{store.folder()}/run", f"{store.folder()}/b [1]/é#", tmp_path / "back"):
        with monkeypatch.context() as patch:
            patch.setattr(copying, "_copy", look)
            assert copy_checkpoint(source, run, FORK)
        assert saved_steps(run) == [FORK]
        assert not any(seen)
        source = run
    assert content(tmp_path / "back") == content(longer)
    started = json.loads(storage.read_text(f"{run}/start.json", "X"))
    assert started["from"] == "fresh"


def test_what_is_no_beginning_is_refused(longer, tmp_path):
    with pytest.raises(UserError, match=r"no checkpoint of step 4 \(those there are of steps: 3"):
        copy_checkpoint(longer, tmp_path / "a", 4)
    imported = tmp_path / "imported"
    (imported / "checkpoints").mkdir(parents=True)
    (imported / "checkpoints" / "3").symlink_to(longer / "checkpoints" / "3")
    (imported / "start.json").write_text('{"from": "hf", "step": 0}')
    with pytest.raises(UserError, match="began from 'hf'"):
        copy_checkpoint(imported, tmp_path / "a", FORK)
    assert not (tmp_path / "a").exists()
