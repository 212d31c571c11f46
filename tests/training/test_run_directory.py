"""The run directory: made or refused in one sentence, and what is written into it."""

import os

import pytest

from switchx import storage
from switchx.errors import UserError
from switchx.model import Model
from switchx.sharding import MeshConfig, make_mesh
from switchx.training.checkpoints.choosing import chosen_step
from switchx.training.checkpoints.refusals import check_resume
from switchx.training.run_directory import (
    locked,
    model_info,
    prepare,
    write_config,
    write_model_info,
)
from switchx.training.run_reader import metric_rows, run_around
from tests.helpers import tiny_config
from tests.training.helpers import run_config


def test_prepare_makes_it_and_keeps_what_is_there(tmp_path):
    path = prepare(tmp_path / "a" / "b")
    (path / "kept").write_text("x")
    assert prepare(path) == path
    assert [file.name for file in path.iterdir()] == ["kept"]


@pytest.mark.parametrize("below", ["", "run"])
def test_a_file_is_refused(tmp_path, below):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"MODEL_DIR='.*file.*' is a file or lies below one: name"):
        prepare(tmp_path / "file" / below)


def test_a_link_to_nothing_is_refused(tmp_path):
    (tmp_path / "link").symlink_to("disk")
    with pytest.raises(UserError, match=r"MODEL_DIR='.*' is a link to 'disk', where nothing is: n"):
        prepare(tmp_path / "link")


@pytest.mark.parametrize("below", ["checkpoints", "checkpoints/3"])
def test_a_run_among_the_checkpoints_of_another_is_refused(tmp_path, below):
    prepare(tmp_path / below)  # of no run
    (tmp_path / "run.json").write_text('{"format": 1, "switchx": "0"}')
    with pytest.raises(UserError, match=f"MODEL_DIR='.*{below}' lies in the run directory '.*': n"):
        prepare(tmp_path / below)
    with pytest.raises(
        UserError, match=f"START_FROM='.*' is no run's directory: name '{tmp_path}'"
    ):
        chosen_step(str(tmp_path / "checkpoints"), "newest", "START_FROM", "START_CHECKPOINT")
    assert run_around(tmp_path / "config.gin", "MODEL_DIR") == tmp_path


def test_of_runs_in_a_bucket_too(monkeypatch):
    monkeypatch.setattr(storage, "is_file", lambda path, _: str(path) == "gs://bucket/run/run.json")
    checkpoint, other = map(
        storage.as_path, ("gs://bucket/run/checkpoints/3", "gs://bucket/other/3")
    )
    assert str(run_around(checkpoint, "MODEL_DIR")) == "gs://bucket/run"
    assert run_around(other, "MODEL_DIR") is None


def test_an_earlier_config_is_kept(tmp_path):
    for text in ("a", "a", "b", "c"):
        write_config(tmp_path, text)
    texts = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert texts == {"config.gin": "c", "config.0.gin": "a", "config.1.gin": "b"}


def test_model_info_lists_every_parameter(tmp_path):
    model = Model.of(tiny_config())
    path = write_model_info(tmp_path, model, make_mesh(MeshConfig(2, 2, 2)), False)
    lines = path.read_text().splitlines()
    assert f"parameters: {model.num_params:,}" in lines
    experts = next(line for line in lines if "encoder/blocks/layer_1" in line and "wi_EDF" in line)
    cells = [cell.strip() for cell in experts.split("  ") if cell.strip()]
    assert cells[1:] == [
        "1 x 4 x 16 x 32",
        "layers, expert, embed, mlp",
        "-, expert, -, model",
        str(f"{4 * 4 * 16 * 32 // 4:,}"),
    ]
    held = [int(line.split()[-1].replace(",", "")) for line in lines[5:] if line]
    assert f"bytes per device: {sum(held):,} (parameters" in lines[2]


def test_one_device_holds_everything():
    import jax

    model = Model.of(tiny_config())
    text = model_info(model, make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1]))
    assert f"bytes per device: {4 * model.num_params:,} " in text


def test_one_trainer_a_directory(tmp_path):
    with locked(tmp_path):
        lock = tmp_path / ".lock"
        assert lock.read_text().startswith(f"{os.getpid()} on ")
        says = rf"{tmp_path}' is in use by another switchx train"
        with pytest.raises(UserError, match=says):
            storage.exclusive_lock(lock, f"MODEL_DIR='{tmp_path}'", "switchx train").__enter__()
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("ask", [prepare, metric_rows, lambda d: check_resume(run_config(), d)])
def test_a_directory_of_a_later_format_is_refused(tmp_path, ask):
    (tmp_path / "run.json").write_text('{"format": 2, "switchx": "9.1", "more": null}')
    with pytest.raises(UserError, match=r"is of format 2, .* up to 1: use switchx 9\.1 or a later"):
        ask(tmp_path)
    for damaged in ("", "[1]", '{"format": "1"}', '{"format": 1}', "[" * 10**5):
        (tmp_path / "run.json").write_text(damaged)
        with pytest.raises(UserError, match=r"has a damaged run\.json: remove that file"):
            ask(tmp_path)
    (tmp_path / "run.json").write_text('{"format": 1, "switchx": "0.1"}')
    ask(tmp_path)


def test_what_a_killed_process_left_unfinished_is_removed(tmp_path):
    (tmp_path / ".0123.part").write_text("half")
    with locked(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
