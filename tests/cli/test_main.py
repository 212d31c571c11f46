"""The entry point: what starts, what is imported, what comes back."""

import os
import runpy
import signal
import subprocess
import sys

import pytest

import switchx
from switchx.cli import info
from switchx.cli.environment import prepare_devices
from switchx.cli.main import COMMANDS, main
from switchx.errors import RunError, UserError

HEAVY = ("jax", "flax", "optax", "numpy", "gin", "seqio", "tensorflow", "matplotlib")


def test_help_imports_nothing_heavy():
    asked = [["--help"], *([name, "--help"] for name in COMMANDS)]
    code = f"""
import sys
import switchx
from switchx.cli.main import main
for argv in {asked!r}:
    try:
        main(argv)
    except SystemExit as end:
        assert end.code == 0, argv
print("IMPORTED", [name for name in {HEAVY!r} if name in sys.modules])
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "IMPORTED []" in out.stdout
    for name in COMMANDS:
        assert f"usage: switchx {name}" in out.stdout


def test_the_package_is_the_command(monkeypatch):
    monkeypatch.setattr("switchx.cli.main.main", lambda: 3)
    with pytest.raises(SystemExit) as end:
        runpy.run_module("switchx", run_name="__main__")
    assert end.value.code == 3


def test_no_arguments_show_the_commands(capsys):
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)


def test_the_version(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert (end.value.code, capsys.readouterr().out) == (0, f"switchx {switchx.__version__}\n")


SWALLOWED = """
import gc, signal, sys, time
from switchx.cli import info, main

def interrupt(phase, _):
    gc.callbacks.remove(interrupt)
    signal.raise_signal(signal.SIGINT)

def run(args):
    gc.callbacks.append(interrupt)
    gc.collect()
    time.sleep(60)

info.run = run
sys.argv = ["switchx", "info"]
sys.exit(main.main())
"""


def test_ctrl_c_is_not_lost_in_a_garbage_collection():
    """JAX has such a callback, and Python ignores what is raised there."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    ended = subprocess.run(
        [sys.executable, "-c", SWALLOWED], capture_output=True, text=True, timeout=50, check=False
    )
    assert (ended.returncode, ended.stderr) == (130, "switchx: interrupted.\n")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["trian"], "'trian'"),
        (["info", "--model_dri=x"], "'--model_dri=x': the nearest is --model_dir."),
        (["info", "--batch_size=8"], "settings are given as --gin.NAME=VALUE."),
        (["info", "runs/a"], "'runs/a': give it as --model_dir=runs/a."),
        (["sweep", "run", "runs/s"], "'runs/s': give it as --sweep_dir=runs/s."),
        (["train", "a.gin"], "'a.gin': give it as --gin_file=a.gin."),
        (["infer", "lines.txt"], "'lines.txt' (see `switchx infer --help`)."),
        (["info", "--gin.BATCH_SIZE"], "--gin.BATCH_SIZE needs a name and a value"),
        (["info", "--gin.BATCH_SIZE="], "--gin.BATCH_SIZE= needs a name and a value"),
        (["info", "--cpu_devices=none"], "--cpu_devices=none must be a whole number"),
        (["info", "--gin_file"], "--gin_file"),
    ],
)
def test_a_wrong_flag_is_one_line(command, argv, said):
    outcome = command(*argv)
    assert outcome.status == 2
    assert outcome.err.startswith("switchx: ")
    assert outcome.err.count("\n") == 1
    assert said in outcome.err


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (UserError("Wrong."), 2, "switchx: Wrong.\n"),
        (RunError("The loss is not finite."), 1, "switchx: The loss is not finite.\n"),
        (KeyboardInterrupt(), 130, "switchx: interrupted.\n"),
    ],
)
def test_exit_status(command, monkeypatch, error, status, said):
    def fail(args):
        raise error

    monkeypatch.setattr(info, "run", fail)
    outcome = command("info")
    assert (outcome.status, outcome.err) == (status, said)


def test_cpu_devices_replace_an_earlier_count_and_keep_other_flags(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_foo=1 --xla_force_host_platform_device_count=8")
    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    prepare_devices(3)
    assert os.environ["XLA_FLAGS"] == "--xla_foo=1 --xla_force_host_platform_device_count=3"
    assert os.environ["JAX_PLATFORMS"] == "cpu"


def test_without_cpu_devices_the_environment_stays(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    prepare_devices(None)
    assert os.environ["JAX_PLATFORMS"] == "tpu"
