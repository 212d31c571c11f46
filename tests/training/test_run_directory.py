"""The run directory: made or refused in one sentence, and what is written into it."""

import errno
import os
import stat
import subprocess
import sys

import pytest

from switchx.errors import RunError, UserError
from switchx.model import Model
from switchx.sharding import MeshConfig, make_mesh
from switchx.training.run_directory import (
    locked,
    model_info,
    prepare,
    write_atomically,
    write_config,
    write_model_info,
)
from tests.helpers import tiny_config


def test_prepare_makes_it_and_keeps_what_is_there(tmp_path):
    path = prepare(tmp_path / "a" / "b")
    (path / "kept").write_text("x")
    assert prepare(path) == path
    assert [file.name for file in path.iterdir()] == ["kept"]


@pytest.mark.parametrize("below", ["", "run"])
def test_a_file_is_refused(tmp_path, below):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"MODEL_DIR='.*file.*' is a file"):
        prepare(tmp_path / "file" / below)
    assert (tmp_path / "file").read_text() == "x"


def test_an_unwritable_directory_is_refused(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    # Permissions do not stop the superuser, who may be running this.
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(UserError, match=r"cannot be written to \(Permission denied\)"):
        prepare(tmp_path)


def test_an_earlier_config_is_kept(tmp_path):
    for text in ("a", "a", "b", "c"):
        write_config(tmp_path, text)
    texts = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert texts == {"config.gin": "c", "config.0.gin": "a", "config.1.gin": "b"}


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, "old")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(RunError, match=r"file cannot be written \(no space"):
        write_atomically(path, "new")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_model_info_lists_every_parameter(tmp_path):
    model = Model.of(tiny_config())
    path = write_model_info(tmp_path, model, make_mesh(MeshConfig(2, 2, 2)))
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


HOLD = (
    "import sys, time\n"
    "from switchx.training.run_directory import locked\n"
    "with locked(sys.argv[1]):\n"
    "    print('held', flush=True)\n"
    "    time.sleep(600)\n"
)


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path):
    """Also by kill -9, after which nothing is cleaned up."""
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        says = rf"MODEL_DIR='.*' is in use by another switchx train, process {other.pid} on \S+:"
        with pytest.raises(UserError, match=says), locked(tmp_path):
            pass
        other.kill()
    with locked(tmp_path), locked(tmp_path):
        assert (tmp_path / ".lock").read_text().startswith(f"{os.getpid()} on ")
    with locked(tmp_path):
        pass


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, capfd):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.lockf", refuse)
    with locked(tmp_path):
        pass
    assert "without locks (No locks available): make sure" in capfd.readouterr().err
