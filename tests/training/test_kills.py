"""Real processes of `switchx train`, killed, stopped, misled and starved: all end the same.

The functions are those of scripts/fault_runs.py, which does the first of these a hundred times.
"""

import shlex
import shutil
import signal
import subprocess
import sys
import time

import jax
import pytest

from scripts import fault_runs
from scripts.fault_runs import Attempt, differences, rows
from switchx import data
from switchx.training.checkpoints.identity import saved_steps
from tests.conftest import QUICKLY
from tests.data.conftest import docs_config

LIMIT = 600
LENGTHS = {"inputs": 64, "targets": 32}


@pytest.fixture(scope="module", autouse=True)
def one_device():
    """As users have, and not the suite's eight, which this process keeps."""
    jax.devices()  # JAX reads its flags at the first call, which may be this one
    patch = pytest.MonkeyPatch()
    patch.setenv("XLA_FLAGS", QUICKLY)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    """Prepared data starts in half the time. Streamed runs are resumed in test_end_to_end."""
    folder = tmp_path_factory.mktemp("prepared")
    data.prepare(docs_config(feature_lengths=LENGTHS, prepared_dir=str(folder)))
    return [f"--gin.PREPARED_DIR={str(folder)!r}"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, flags):
    directory = tmp_path_factory.mktemp("faults") / "undisturbed"
    began = time.monotonic()
    assert Attempt(directory, *flags).end() == 0, directory.with_suffix(".log").read_text()
    return directory, time.monotonic() - began


POINTS = """
import sys
from switchx.cli.environment import prepare_devices
prepare_devices(1)
import jax
from switchx.api import configure, train_run

compiled = []
jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: compiled.append(name))
for point in (0, 1):
    compiled.clear()
    changes = {"SEED": point, "LEARNING_RATE": 1.0 - point / 2, "TRAIN_STEPS": 2 + point}
    train_run(configure([sys.argv[1]], f"{sys.argv[2]}/{point}", **changes))
heavy = {"tensorflow", "seqio", "t5", "tensorflow_datasets"} & set(sys.modules)
assert not heavy, heavy
again = [name for name in compiled if "backend_compile" in name or "trace" in name]
assert not again, again
"""


def test_a_second_point_in_a_process_compiles_nothing_and_none_needs_tensorflow(
    undisturbed, tmp_path
):
    config = undisturbed[0] / "config.gin"
    command = [sys.executable, "-c", POINTS, str(config), str(tmp_path)]
    done = subprocess.run(command, cwd=fault_runs.REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_killed_at_random_moments(undisturbed, flags):
    directory, life = undisturbed
    killed = directory.with_name("killed")
    *_, outcome = fault_runs.kill_runs(killed, directory, life, 3, signal.SIGKILL, 0, *flags)
    assert outcome.wrong == []
    assert outcome.kills.total() == 3


def test_asked_to_stop(tmp_path, undisturbed, flags):
    """Of one run each life is stopped, at each phase, by one signal after another.

    From the first step on it saves and says so by its status; before, there is nothing yet.
    """
    for phase, number in (
        ("compile", signal.SIGINT),
        ("step", signal.SIGTERM),
        ("save", signal.SIGHUP),
        ("evaluation", signal.SIGINT),
    ):
        attempt = Attempt(tmp_path / "run", *flags)
        wait_for(phase, attempt)
        attempt.process.send_signal(number)
        status, said = attempt.end(), attempt.log.read_text()
        assert status in (128 + number, -number), said
        assert "Traceback" not in said
        if phase != "compile":
            assert status == 128 + number
            newest = saved_steps(attempt.directory)[-1]
            assert newest == max(step for _, step in rows(attempt.directory))
    attempt = Attempt(attempt.directory, *flags)
    assert attempt.end() == 0, attempt.log.read_text()
    assert differences(attempt.directory, undisturbed[0]) == []


def wait_for(phase, attempt):
    """Returns as soon as the run is at it: at "compile" once it holds the directory."""
    deadline = time.monotonic() + LIMIT
    while attempt.process.poll() is None:
        assert time.monotonic() < deadline
        if phase == "compile" and (attempt.directory / ".lock").exists():
            time.sleep(1.0)
            return
        if phase == attempt.phase():
            return
        time.sleep(0.002)
    raise AssertionError(f"it ended before {phase}: {attempt.log.read_text()}")


JUMPS = """
import itertools, time
real, calls = time.time, itertools.count()
YEARS = 10 * 365.25 * 86400

def jumping():
    # Every so many calls the clock goes ten years ahead, or ten years back.
    return real() + (0, YEARS, -YEARS)[next(calls) // 40 % 3]

time.time = jumping
time.time_ns = lambda: int(jumping() * 1e9)
"""


def test_two_at_once_and_a_clock_that_jumps(tmp_path, undisturbed, flags):
    """The second is refused at once, and the first, whose clock it is, notices neither."""
    (tmp_path / "sitecustomize.py").write_text(JUMPS)
    first = Attempt(tmp_path / "run", *flags, PYTHONPATH=str(tmp_path))
    wait_for("step", first)
    first.process.send_signal(signal.SIGSTOP)  # or it has ended when the second is there at last
    second = subprocess.run(
        [*first.process.args],
        cwd=fault_runs.REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    first.process.send_signal(signal.SIGCONT)
    assert second.returncode == 2
    assert f"is in use by another switchx train, process {first.process.pid} on " in second.stderr
    assert len(second.stderr.strip().splitlines()) == 1
    assert first.process.wait(LIMIT) == 0, first.log.read_text()
    assert differences(first.directory, undisturbed[0]) == []


# A file system of its own, of so many bytes, that only the processes within see.
FULL = """
mount -t tmpfs -o size={size} tmpfs {place}
cd {repository}
{command} >{log}.1 2>&1; echo $? >{log}.status; ls {place}/run/checkpoints >{log}.steps
mount -o remount,size=1g {place}
{command} >{log}.2 2>&1; echo $? >>{log}.status
mount -o remount,ro {place}
{command} >{log}.3 2>&1; echo $? >>{log}.status
cp -r {place}/run {copy}
"""


def test_a_full_disk_and_one_that_is_read_only(tmp_path, undisturbed, flags):
    """One line each; what was saved stays, and with room again the run ends the same."""
    unshare = shutil.which("unshare") or "false"
    if subprocess.run([unshare, "-rm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs a namespace in which to mount a small file system")
    place, log = tmp_path / "place", tmp_path / "log"
    place.mkdir()
    # Room for two checkpoints and no third.
    newest = undisturbed[0] / "checkpoints" / str(fault_runs.STEPS)
    one = sum(path.stat().st_size for path in newest.rglob("*"))
    script = FULL.format(
        size=int(2.7 * one),
        place=place,
        repository=fault_runs.REPOSITORY,
        command=shlex.join(fault_runs.command(place / "run", *flags)),
        log=log,
        copy=tmp_path / "run",
    )
    subprocess.run(["unshare", "-rm", "sh", "-c", script], check=True, timeout=LIMIT)
    said = [log.with_name(f"log.{n}").read_text() for n in (1, 2, 3)]
    assert log.with_name("log.status").read_text().split() == ["1", "0", "2"], said
    assert [text for text in said if "Traceback" in text] == []
    *before, last = [line for line in said[0].splitlines() if "switchx:" in line]
    assert last == said[0].splitlines()[-1]
    # The disk may be full for the event file first, which the run outlives.
    assert [line for line in before if "writer tensorboard is off" not in line] == []
    assert "cannot be written to (Read-only file system)" in said[2]
    kept = [name for name in log.with_name("log.steps").read_text().split() if name.isdigit()]
    assert kept
    assert differences(tmp_path / "run", undisturbed[0]) == []
    shutil.rmtree(place)


def test_files_that_cannot_grow_end_the_run(tmp_path, undisturbed, flags):
    """No file may be larger, which stands for a full disk where none may be mounted.

    First the metrics cannot grow, then a checkpoint cannot be saved.
    """
    for kilobytes, period, said in (
        (12, 1000, " cannot be written (File too large)"),
        (200, fault_runs.CHECKPOINT_PERIOD, ": A checkpoint could not be saved in MODEL_DIR="),
    ):
        run = fault_runs.command(tmp_path / "run", *flags, f"--gin.CHECKPOINT_PERIOD={period}")
        # What is compiled is read from the cache, where writing would fail too.
        limited = ["sh", "-c", f'ulimit -f {2 * kilobytes}; exec "$@"', "sh", *run]
        ended = subprocess.run(limited, cwd=fault_runs.REPOSITORY, capture_output=True, text=True)
        assert ended.returncode == 1
        assert "Traceback" not in ended.stderr
        assert said in ended.stderr.splitlines()[-1]
    attempt = Attempt(tmp_path / "run", *flags)
    assert attempt.end() == 0, attempt.log.read_text()
    assert differences(attempt.directory, undisturbed[0]) == []
