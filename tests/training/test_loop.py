"""Whole runs: resume after any end, bitwise; stops; checkpoints kept and refused."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from switchx.errors import RunError, UserError
from switchx.evaluation import evaluate
from switchx.model import Model
from switchx.sharding import MeshConfig, make_mesh
from switchx.training import train
from switchx.training.checkpoints import Checkpoints, restore_params
from switchx.training.checkpoints.identity import identity
from switchx.training.checkpoints.positions import PositionSave
from switchx.training.host_rows import HostShards
from switchx.training.metrics import read
from switchx.training.state import Setup
from tests.training.helpers import Stream, batch, eval_batches, evaluation, run_config

REPOSITORY = Path(__file__).parents[2]


def go(directory, stream=Stream, **changes):
    return train(run_config(**changes), str(directory), stream, evaluation, "# none\n", "v1")


def params_of(directory, step=None):
    run = run_config()
    found, step = restore_params(Model.of(run.model), directory, make_mesh(run.mesh), step)
    return jax.device_get(found), step


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run of six steps without interruption."""
    directory = tmp_path_factory.mktemp("undisturbed")
    result = go(directory)
    return directory, result


def assert_same_end(directory, undisturbed):
    """Bitwise the same parameters and the same training losses at every step."""
    (ours, step), (theirs, _) = params_of(directory), params_of(undisturbed[0])
    assert step == 6
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    losses = [
        {row["step"]: row["loss"] for row in read(d) if row["split"] == "train"}
        for d in (directory, undisturbed[0])
    ]
    assert losses[0] == losses[1]
    assert sorted(losses[0]) == [1, 2, 3, 4, 5, 6]


def test_a_run_leaves_what_it_promises(undisturbed):
    directory, result = undisturbed
    assert result.step == 6
    assert result.load.shape == (2, 8)
    np.testing.assert_allclose(result.load.sum(axis=1), 1, rtol=1e-5)
    for name in ("config.gin", "model_info.txt", "metrics.jsonl"):
        assert (directory / name).stat().st_size > 0
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert {
        "loss",
        "negative_log_perplexity",
        "accuracy",
        "learning_rate",
        "gradient_norm",
        "tokens_per_second",
        "model_flops_per_second",
        "utilisation",
        "load",
        "dropped_fraction",
        "router_entropy",
        "balance_loss",
        "router_z_loss",
    } <= set(rows[0])
    assert rows[0]["negative_log_perplexity"] == -rows[0]["loss"]


def test_evaluation_of_the_checkpoint_equals_the_runs_own(undisturbed):
    directory, result = undisturbed
    values = evaluate(run_config(), str(directory), eval_batches)
    assert values["step"] == 6
    assert values["loss"] == result.validation["loss"]


def test_train_then_resume_is_bitwise_the_same(tmp_path, undisturbed):
    go(tmp_path, train_steps=4)
    go(tmp_path)
    assert_same_end(tmp_path, undisturbed)


def test_killed_and_resumed_is_bitwise_the_same(tmp_path, undisturbed):
    """kill -9 of a real process after its third step; what was not saved is done again."""
    script = (
        "import sys, time\n"
        "from tests.training import helpers, test_loop\n"
        "class Slow(helpers.Stream):\n"
        "    def __next__(self):\n"
        "        time.sleep(1.0 if self.number > 3 else 0.0)\n"
        "        return super().__next__()\n"
        "test_loop.go(sys.argv[1], Slow)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], cwd=REPOSITORY, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        if any(row["step"] >= 3 for row in read(tmp_path)):
            break
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "loss.png").exists()
    go(tmp_path)
    assert_same_end(tmp_path, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
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
    assert Checkpoints(tmp_path, read_only=True).steps()[-1] == 3
    go(tmp_path)
    assert_same_end(tmp_path, undisturbed)


def test_a_loss_that_is_not_finite_stops_the_run_and_is_never_saved(tmp_path):
    class Broken(Stream):
        def __next__(self):
            found = super().__next__()
            if self.number == 4:
                found["decoder_loss_weights"] = found["decoder_loss_weights"] * np.nan
            return found

    with pytest.raises(RunError, match=r"step 4 is not finite.*checkpoint is of step 2"):
        go(tmp_path, Broken)
    assert Checkpoints(tmp_path, read_only=True).steps() == [2]


def test_a_damaged_checkpoint_is_passed_over(tmp_path, undisturbed, capfd):
    go(tmp_path)
    for path in (tmp_path / "checkpoints" / "6" / "params").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    result = go(tmp_path)
    assert result.step == 6
    assert "checkpoint of step 6 cannot be read" in capfd.readouterr().err
    assert Checkpoints(tmp_path, read_only=True).steps() == [2, 4, 6]
    assert [path.name.split("-")[0] for path in (tmp_path / "damaged").iterdir()] == ["6"]
    assert_same_end(tmp_path, undisturbed)


def written(directory):
    """When each file was written; the lock is taken by whoever looks."""
    files = (p for p in directory.rglob("*") if p.is_file() and p.name != ".lock")
    return {p: p.stat().st_mtime_ns for p in files}


def test_another_models_directory_is_refused_and_left_alone(undisturbed):
    directory, _ = undisturbed
    before = written(directory)
    with pytest.raises(UserError, match=r"d_ff is 128 there and 256 here"):
        go(directory, d_ff=256)
    with pytest.raises(UserError, match=r"OPTIMIZER=.adamw. is not what"):
        go(directory, name="adamw")
    with pytest.raises(UserError, match="VOCABULARY does not match"):
        train(run_config(), str(directory), Stream, evaluation, "", "v2")
    assert written(directory) == before


def test_fewer_steps_than_are_done_are_refused(undisturbed):
    directory, _ = undisturbed
    with pytest.raises(UserError, match=r"TRAIN_STEPS=4 lies behind .* is of step 6: give at"):
        go(directory, train_steps=4)


def test_a_setting_that_changes_the_optimizers_arrays_is_refused_not_taken_for_damage(undisturbed):
    directory, _ = undisturbed
    with pytest.raises(UserError, match=r"another model or optimizer: optimizer/state/\[0\]"):
        go(directory, clip_global_norm=1.0)
    assert not (directory / "damaged").exists()


def test_the_newest_and_the_best_checkpoints_stay(tmp_path):
    run = run_config()
    state = Setup.of(run, make_mesh(run.mesh)).init()
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step, loss in [(1, 3.0), (2, 1.0), (3, 2.0), (4, 2.5), (5, None)]:
        at = type(state)(state.step + step, state.params, state.opt_state)
        checkpoints.save(at, PositionSave({}, 1), identity(run.model), loss)
    checkpoints.wait()
    assert checkpoints.steps() == [2, 4, 5]


def test_a_checkpoint_restores_onto_another_mesh(undisturbed):
    directory, _ = undisturbed
    run = run_config(mesh=MeshConfig(2, 2, 2))
    mesh = make_mesh(run.mesh)
    shards = HostShards.of(mesh, run.batch)
    restored = Checkpoints(directory, read_only=True).restore_newest(Setup.of(run, mesh), shards)
    jax.tree.map(
        np.testing.assert_array_equal,
        jax.device_get(restored.state.params),
        params_of(directory)[0],
    )
    assert restored.positions == {0: b"6"}
    wi_NEDF = restored.state.params["encoder"]["blocks"]["layer_1"]["feed_forward"]["switch"][
        "experts"
    ]["wi_EDF"]
    assert wi_NEDF.sharding.shard_shape(wi_NEDF.shape) == (1, 4, 128, 64)


def test_batches_are_pure():
    for key, value in batch(3).items():
        np.testing.assert_array_equal(value, batch(3)[key])
