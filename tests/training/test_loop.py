"""Whole runs on eight devices: what they leave, resume bitwise, refuse, and show again."""

import json

import jax
import numpy as np
import pytest

from switchx.errors import UserError
from switchx.evaluation import evaluate
from switchx.sharding import MeshConfig, make_mesh
from switchx.training import run, train
from switchx.training.state import Setup
from tests.training.helpers import (
    Stream,
    assert_same_end,
    eval_batches,
    feed,
    params_of,
    restored,
    run_config,
)


def go(directory, stream=Stream, **changes):
    return train(run_config(**changes), str(directory), feed(stream), "# none\n")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run of six steps without interruption."""
    directory = tmp_path_factory.mktemp("undisturbed")
    result = go(directory)
    return directory, result


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
    assert_same_end(tmp_path, undisturbed[0], run_config())


@pytest.mark.parametrize("changes", [{}, {"learning_rate": 0.5}], ids=["again", "another rate"])
def test_a_finished_run_started_again_is_left_as_it_is(changes, undisturbed, monkeypatch):
    """Nothing is compiled, trained, evaluated or written; the result is what it left."""
    directory, result = undisturbed
    before = {p: p.read_bytes() for p in directory.rglob("*") if p.is_file() and p.name != ".lock"}
    monkeypatch.setattr(run, "compile_train_step", None)
    again = train(run_config(**changes), str(directory), feed(), "# another config\n")
    assert (again.step, again.first_step, again.stopped_by) == (6, 6, None)
    assert again.validation == pytest.approx(result.validation, rel=1e-7)
    np.testing.assert_allclose(again.load, result.load, rtol=1e-7)
    after = {p: p.read_bytes() for p in directory.rglob("*") if p.is_file() and p.name != ".lock"}
    assert after == before


def test_what_a_run_was_started_from_is_written_down(undisturbed):
    directory, _ = undisturbed
    record = json.loads((directory / "start.json").read_text())
    assert record == {"from": "fresh", "step": 0, "optimizer": "fresh"}


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
        train(run_config(), str(directory), feed(vocabulary="v2"))
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


def test_a_checkpoint_restores_onto_another_mesh(undisturbed):
    directory, _ = undisturbed
    run = run_config(mesh=MeshConfig(2, 2, 2))
    found = restored(directory, Setup.of(run, make_mesh(run.mesh)))
    jax.tree.map(
        np.testing.assert_array_equal,
        jax.device_get(found.state.params),
        params_of(directory, run_config()),
    )
    assert found.positions == {0: b"6"}
    wi_NEDF = found.state.params["encoder"]["blocks"]["layer_1"]["feed_forward"]["switch"][
        "experts"
    ]["wi_EDF"]
    assert wi_NEDF.sharding.shard_shape(wi_NEDF.shape) == (1, 4, 128, 64)
