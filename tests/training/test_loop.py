"""Whole runs on eight devices: what they leave, resume bitwise, refuse, and show again."""

import fnmatch
import json
import re
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

import switchx
from switchx.errors import UserError
from switchx.evaluation import evaluate
from switchx.reports.pictures import draw
from switchx.sharding import MeshConfig, make_mesh
from switchx.training import run, train
from switchx.training.config import OPTIMIZERS
from switchx.training.run_reader import FORMAT, metric_rows
from switchx.training.state import Setup
from switchx.writers import RunFacts, Writers
from tests.training.helpers import (
    Stream,
    assert_same_end,
    eval_batches,
    feed,
    params_of,
    restored,
    run_config,
)


class Failing:
    """A writer that fails at each row."""

    def begin(self, run, step, rows): ...

    def close(self, status): ...

    def write(self, row):
        raise ValueError("no room\nfor more")


def noisy_run(**changes):
    """With dropout, which a run that goes on must draw as it would have."""
    return run_config(dropout_rate=0.1, **changes)


def go(directory, stream=Stream, own=(), **changes):
    facts = RunFacts(str(directory), layer_names=["encoder 1", "decoder 1"])
    with Writers(facts, ["tensorboard"], own) as writers:
        run = noisy_run(**changes)
        return train(run, str(directory), feed(stream), "# none\n", writers=writers)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run of six steps without interruption."""
    directory = tmp_path_factory.mktemp("any") / "a run [1] * ä#%"
    result = go(directory)
    return directory, result


def test_a_run_returns_its_last_evaluation(undisturbed):
    _, result = undisturbed
    assert result.step == 6
    assert result.load.shape == (2, 8)
    np.testing.assert_allclose(result.load.sum(axis=1), 1, rtol=1e-5)


def documented(heading):
    """The rows of all tables below a heading of docs/run_directory.md: names in code, and cells."""
    text = (Path(__file__).parents[2] / "docs" / "run_directory.md").read_text()
    section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \| (.*) \|$", section, re.MULTILINE)
    return [(re.findall(r"`(.*?)`", first), *rest.split(" | ")) for first, rest in rows]


def test_a_run_leaves_the_files_that_its_document_lists(undisturbed):
    directory, _ = undisturbed
    draw(directory)
    files = [str(p.relative_to(directory)) for p in directory.rglob("*") if not p.is_dir()]
    listed = {
        re.sub("<.*?>", "*", n): there for names, there, _ in documented("Files") for n in names
    }
    assert [f for f in files if not any(fnmatch.fnmatchcase(f, name) for name in listed)] == []
    expected = [n for n, there in listed.items() if there.startswith(("always", "at the end"))]
    assert [name for name in expected if not fnmatch.filter(files, name)] == []
    assert json.loads((directory / "run.json").read_text()) == {
        "format": FORMAT,
        "switchx": switchx.__version__,
    }


@pytest.mark.parametrize("split", ["train", "validation"])
def test_rows_have_the_fields_that_the_document_lists(undisturbed, split):
    expected = {
        n for names, *rest in documented("metrics.jsonl") for n in names if applies(split, rest)
    }
    rows = [row for row in metric_rows(undisturbed[0]) if row["split"] == split]
    assert [set(row) ^ expected for row in rows] == [set()] * {"train": 6, "validation": 1}[split]
    for row in rows:
        assert row["negative_log_perplexity"] == -row["loss"]


def applies(split, rest):
    """Whether a row of the tables of fields is of a split: they say so where it is not of all."""
    if "distilled" in rest[0]:  # this run has no teacher
        return False
    return rest[0] not in ("train", "validation") or rest[0] == split


def test_a_checkpoint_holds_the_items_that_the_document_lists(undisturbed):
    checkpoint = undisturbed[0] / "checkpoints" / "6"
    items = {name for names, _ in documented("checkpoints") for name in names}
    assert {path.name for path in checkpoint.iterdir() if path.is_dir()} == items
    ((_, content),) = [row for row in documented("checkpoints") if row[0] == ["identity"]]
    saved = json.loads((checkpoint / "identity" / "metadata").read_text())
    frozen = {"frozen", "FREEZE"}  # this run has nothing of it
    assert set(saved) == set(re.findall("`(.*?)`", content)) - {"metadata"} - frozen


def test_evaluation_of_the_checkpoint_equals_the_runs_own(undisturbed):
    directory, result = undisturbed
    values = evaluate(noisy_run(), str(directory), eval_batches)
    assert values["step"] == 6
    assert values["loss"] == result.validation["loss"]


def test_train_then_resume_is_bitwise_the_same_beside_a_writer_that_fails(
    tmp_path, undisturbed, capfd
):
    go(tmp_path, own=[Failing()], train_steps=4)
    assert capfd.readouterr().err.count("writer Failing is off, and the run goes on (Value") == 1
    go(tmp_path)
    assert_same_end(tmp_path, undisturbed[0], noisy_run())


@pytest.mark.parametrize("changes", [{}, {"learning_rate": 0.5}], ids=["again", "another rate"])
def test_a_finished_run_started_again_is_left_as_it_is(changes, undisturbed, monkeypatch):
    """Nothing is compiled, trained, evaluated or written; the result is what it left."""
    directory, result = undisturbed
    before = {p: p.read_bytes() for p in directory.rglob("*") if p.is_file() and p.name != ".lock"}
    monkeypatch.setattr(run, "compile_train_step", None)
    again = train(noisy_run(**changes), str(directory), feed(), "# another config\n")
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
        train(noisy_run(), str(directory), feed(vocabulary="v2"))
    assert written(directory) == before


def test_fewer_steps_than_are_done_are_refused(undisturbed):
    directory, _ = undisturbed
    with pytest.raises(UserError, match=r"TRAIN_STEPS=4 lies behind .* is of step 6: give at"):
        go(directory, train_steps=4)


def test_an_optimizer_with_other_arrays_is_refused_not_taken_for_damage(undisturbed, monkeypatch):
    """As one of that name would be that was written anew."""
    directory, _ = undisturbed
    plain = lambda config, schedule, axes: optax.sgd(schedule)  # noqa: E731
    monkeypatch.setitem(OPTIMIZERS, "adafactor", plain)
    with pytest.raises(UserError, match=r"another model or optimizer: optimizer/state/.* missing"):
        go(directory)
    assert not (directory / "damaged").exists()


def test_a_checkpoint_restores_onto_another_mesh(undisturbed):
    directory, _ = undisturbed
    run = noisy_run(mesh=MeshConfig(2, 2, 2))
    found = restored(directory, Setup.of(run, make_mesh(run.mesh)))
    jax.tree.map(
        np.testing.assert_array_equal,
        jax.device_get(found.state.params),
        params_of(directory, noisy_run()),
    )
    assert found.positions == {0: b"6"}
    wi_NEDF = found.state.params["encoder"]["blocks"]["layer_0"]["feed_forward"]["switch"][
        "experts"
    ]["wi_EDF"]
    assert wi_NEDF.sharding.shard_shape(wi_NEDF.shape) == (1, 4, 128, 64)
