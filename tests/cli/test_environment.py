"""What a command does to its process, and what it says of its environment."""

import os
import resource
import subprocess
import sys
import tempfile
from types import SimpleNamespace

import jax
import pytest

from switchx import storage
from switchx.cli import environment, guard
from switchx.data import DataConfig, tensorflow_loader
from switchx.errors import RunError, UserError


def python(code, *argv, **environment):
    return subprocess.run(
        [sys.executable, "-c", code, *argv],
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ | environment,
    )


NOISY = """
import logging, os, sys, warnings
from switchx.cli import info, main

def run(args):
    os.write(2, b"of a C++ library\\n")
    logging.getLogger("absl").warning("of a logger")
    warnings.warn("of Python")
    print("ours", file=sys.stderr)
    if "run" in sys.argv and args.log:
        args.log.move_to(os.environ.get("RUN", "."))
        os.write(2, b"later\\n")
        logging.getLogger("orbax").warning("logged later")
    if "fail" in sys.argv:
        raise ValueError("unforeseen")

info.run = run
info.add_arguments = lambda parser: parser.add_argument("how", nargs="*")
sys.argv = ["switchx", "info", *sys.argv[1:]]
sys.exit(main.main())
"""
WORDS = ("of a C++ library", "of a logger", "of Python")


def test_on_a_good_day_only_our_own_words_are_shown():
    ended = python(NOISY, PYTHONWARNINGS="error::ResourceWarning")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "ours\n")


def test_verbose_shows_all():
    said = python(NOISY, "--verbose").stderr
    assert all(word in said for word in (*WORDS, "ours"))


def test_on_a_bad_day_they_are_shown():
    ended = python(NOISY, "fail")
    assert ended.returncode == 1
    assert all(word in ended.stderr for word in (*WORDS, "ours", "ValueError: unforeseen"))


@pytest.mark.parametrize("how", [["run"], ["run", "fail"]])
def test_those_of_a_run_are_in_its_directory(tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    said = python(NOISY, *how).stderr
    assert not any(word in said for word in WORDS)
    assert ("what libraries said is in libraries.log" in said) == ("fail" in how)
    kept = (tmp_path / "libraries.log").read_text()
    assert all(word in kept for word in (*WORDS, "later", "logged later"))


def test_those_of_a_run_in_a_bucket_are_there_at_the_end(gs):
    """And shown, where the run failed."""
    folder = gs.folder()
    said = python(NOISY, "run", RUN=folder).stderr
    assert said == "ours\n"
    said = python(NOISY, "run", "fail", RUN=folder).stderr
    assert all(word in said for word in (*WORDS, "ours", "ValueError: unforeseen"))
    kept = storage.read_text(f"{folder}/libraries.log", "X")
    assert [kept.count(word) for word in (*WORDS, "logged later")] == [2] * 4


@pytest.mark.parametrize("name", ["cuda", "mistake"])
def test_a_platform_that_is_not_there(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    code = "import sys; from switchx.cli.main import main; sys.exit(main())"
    ended = python(code, "train", JAX_PLATFORMS=name)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"switchx: JAX_PLATFORMS={name} names a platform that is not")
    assert ended.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_importing_the_command_line_changes_nothing_in_the_process():
    code = """
import logging, os, sys
def state():
    return dict(os.environ), sys.stderr, logging.root.handlers[:], sys.excepthook
before = state()
import switchx.cli.main, switchx.cli.environment, switchx.cli.flags
assert state() == before
"""
    assert python(code).returncode == 0


COMMAND = "import sys; from switchx.cli.main import main; sys.exit(main())"


def said(tmp_path, *argv, **environment):
    """The one line of a command that is refused, which makes nothing."""
    ended = subprocess.run(
        [sys.executable, "-c", COMMAND, *argv],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=tmp_path,
        env=os.environ | environment,
    )
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.startswith("switchx: ")
    assert ended.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
    return ended.stderr


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("XLA_FLAGS", "--xla_nope=1", "XLA_FLAGS=--xla_nope=1 is not accepted by XLA (Unknown"),
        (
            "XLA_FLAGS",
            "--xla_force_host_platform_device_count=x",
            "device_count=x is not accepted by XLA",
        ),
        ("JAX_NUM_CPU_DEVICES", "many", "JAX_NUM_CPU_DEVICES=many is not accepted by JAX"),
        ("JAX_TRACEBACK_FILTERING", "no", "JAX_TRACEBACK_FILTERING=no is not accepted by JAX"),
        ("JAX_ENABLE_X64", "True", "JAX_ENABLE_X64=True makes arrays of 64 bits"),
        ("JAX_NUMPY_RANK_PROMOTION", "raise", "JAX_NUMPY_RANK_PROMOTION=raise refuses products"),
    ],
)
def test_a_variable_that_a_library_would_end_on(tmp_path, name, value, part):
    assert part in said(tmp_path, "train", **{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("XLA_FLAGS", "--xla_foo=1 --xla_force_host_platform_device_count=0"),
        ("JAX_NUM_CPU_DEVICES", "100000"),
    ],
)
def test_as_many_devices_as_no_machine_simulates(name, value):
    count = value.split("=")[-1]
    with pytest.raises(UserError, match=f"^{name}={value} asks for {count} CPU devices: ask for 1"):
        guard.check_computing({name: value})


@pytest.mark.parametrize(
    ("optimize", "line"),
    [
        (0, "TensorFlow and seqio cannot be imported (TypeError: no %)"),
        (2, "PYTHONOPTIMIZE=2 takes the docstrings away"),
    ],
)
def test_libraries_that_cannot_be_imported(monkeypatch, optimize, line):
    monkeypatch.setattr(
        tensorflow_loader, "sys", SimpleNamespace(flags=SimpleNamespace(optimize=optimize))
    )
    with pytest.raises(UserError) as caught, tensorflow_loader._import_errors():
        raise TypeError("no %")
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize("kind", [jax.errors.JaxRuntimeError, MemoryError])
def test_memory_that_is_full(kind):
    found = guard.explained(kind("RESOURCE_EXHAUSTED: 9 bytes."))
    assert isinstance(found, RunError)
    assert "There is not memory enough (RESOURCE_EXHAUSTED: 9 bytes.): lower" in str(found)
    assert guard.explained(jax.errors.JaxRuntimeError("INTERNAL: x")) is None


def test_a_working_folder_that_is_gone(tmp_path):
    code = f"import os; os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')\n{COMMAND}"
    ended = subprocess.run(
        [sys.executable, "-c", code, "info"], capture_output=True, text=True, cwd=tmp_path
    )
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert "The working folder is no longer there" in ended.stderr


def test_no_room_for_temporary_files(monkeypatch):
    def full():
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", full)
    with pytest.raises(UserError, match=r"written \(No usable .* in \['/tmp'\]\): make room, or"):
        guard.check()


def test_a_library_beyond_the_limit_of_memory(monkeypatch):
    error = ImportError("lib.so: failed to map segment from shared object")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    assert guard.explained(error) is None
    monkeypatch.setattr(resource, "getrlimit", lambda _: (2**28, 2**28))
    found = guard.explained(error)
    assert isinstance(found, UserError)
    assert str(found).startswith(f"A library cannot be loaded ({error}) within the 256 MB of memor")
    for other in (OSError(), ModuleNotFoundError("No module named 'wandb'")):
        assert guard.explained(other) is None


@pytest.mark.parametrize(
    ("redirected", "status", "line"),
    [
        ("info >/dev/full", 1, "switchx: standard output cannot be written (No space left on dev"),
        ("info --nope 2>/dev/full", 2, ""),
        ("info <&- >&-", 0, ""),
        ("info --nope >&- 2>&-", 2, ""),
        ("infer --model_dir=nowhere <&-", 2, "switchx: --input=- has no lines"),
    ],
)
def test_standard_streams_that_are_full_or_closed(tmp_path, redirected, status, line):
    command = f"{sys.executable} -c '{COMMAND}' {redirected}"
    ended = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=tmp_path)
    assert (ended.returncode, ended.stderr.count("\n")) == (status, bool(line)), ended.stderr
    assert ended.stderr.startswith(line)


def test_what_windows_are_for_is_not_for_pictures():
    code = """
import os, sys
os.environ["MPLBACKEND"] = "of a notebook"
from switchx.cli import environment
environment.prepare_libraries()
import matplotlib
print(matplotlib.get_backend())
"""
    assert python(code).stdout == "agg\n"


def test_a_user_without_a_home_folder(monkeypatch):
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    for name in ("SWITCHX_CACHE", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    environment.prepare_compile_cache()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
    with pytest.raises(UserError, match="this user has none: set CACHE_DIR or SWITCHX_CACHE"):
        _ = DataConfig("a", {}, 1).cache_path


@pytest.mark.parametrize("count", ["0", "-1", "²", "1e3", "100000"])
def test_a_count_of_devices_that_there_cannot_be(command, count):
    outcome = command("info", f"--cpu_devices={count}")
    assert outcome.status == 2
    assert f"--cpu_devices={count} must be a whole number from 1 to 1024" in outcome.err
