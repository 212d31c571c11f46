"""scripts/on_gpu.sh on a CPU at tiny sizes: each part leaves its file, without TensorFlow."""

import json
import os
import subprocess
import sys

import pytest
from gpu import checks

from tests.scripts.launching import ROOT


def on_gpu(tmp_path, *arguments, status=0):
    """Runs the script where importing TensorFlow or seqio fails."""
    blocked = tmp_path / "blocked"
    for name in ("tensorflow", "seqio", "tensorflow_datasets", "t5"):
        (blocked / name).mkdir(parents=True, exist_ok=True)
        (blocked / name / "__init__.py").write_text(f"raise ImportError('{name} was imported')")
    ended = subprocess.run(
        [
            ROOT / "scripts/on_gpu.sh",
            "--platform=cpu",
            "--tiny",
            f"--out={tmp_path}/out",
            *arguments,
        ],
        env={**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(blocked)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert ended.returncode == status, ended.stdout
    return ended.stdout


def test_parts_leave_their_files_and_are_not_done_twice(tmp_path):
    shown = on_gpu(tmp_path, "layer", "profile")
    assert "== layer\n" in shown
    layer = json.loads((tmp_path / "out/layer.json").read_text())
    assert [row["dispatcher"] for row in layer["results"]] == ["dense", "index", "dense", "ragged"]
    assert all(row["milliseconds"] > 0 for row in layer["results"])
    costs = json.loads((tmp_path / "out/profile.json").read_text())["costs"]["dense"]
    assert sum(row["share"] for row in costs) == pytest.approx(1, abs=0.3)
    shown = on_gpu(tmp_path, "layer", "profile")
    assert "== layer: done before" in shown
    assert "== profile: done before" in shown


def test_a_part_that_fails_is_said_and_tried_again(tmp_path):
    """The sweep has no prepared set here."""
    shown = on_gpu(tmp_path, "sweep", f"--set={tmp_path}/none", status=1)
    assert "== sweep did not finish: run the same command again" in shown
    assert not (tmp_path / "out/sweep.json").exists()


def test_what_is_missing_is_said_first(tmp_path):
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys._base_executable} -S "$@"\n')
    bare.chmod(0o755)
    ended = subprocess.run(
        [ROOT / "scripts/on_gpu.sh", f"--out={tmp_path}/out"],
        env={**os.environ, "PYTHON": str(bare)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1
    assert "missing for every part: jax[cuda12] flax optax orbax-checkpoint" in ended.stdout
    assert "on_gpu.sh pack" in ended.stdout


def test_the_checks_are_tests_that_exist():
    for name in checks.TESTS:
        file, _, test = name.partition("::")
        assert f"def {test}" in (ROOT / file).read_text(), name
