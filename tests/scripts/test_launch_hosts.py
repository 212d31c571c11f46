"""A switchx command arrives unchanged, and signals reach it, through ssh, xpk and SLURM."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.scripts.launching import (
    HARD,
    RECORDER,
    SCRIPTS,
    STUB,
    alive,
    dry_run,
    eventually,
    executable,
    launch,
)

# --- TPU VMs: through ssh to a host


# gcloud splits the command at spaces, ssh joins it again, and the host's shell reads it.
SSH = f"""#!{sys.executable}
import os, subprocess, sys
[command] = [word[len("--command="):] for word in sys.argv if word.startswith("--command=")]
os.chdir(os.environ["HOME"])
line = " ".join(command.split(" "))
sys.exit(subprocess.run(["bash", "-c", line], start_new_session=True).returncode)
"""


@pytest.fixture
def host(tools, tmp_path):
    """A home folder that is set up as `setup` leaves it, with a stand-in for switchx."""
    home = tmp_path / "home"
    shutil.copytree(SCRIPTS, home / "switchx-1" / "scripts")
    (home / "switchx").symlink_to("switchx-1")
    executable(home / "switchx" / ".venv" / "bin" / "switchx", STUB)
    tools.env["HOME"] = str(home)
    tools.add("gcloud", text=SSH)
    yield home
    for started in tools.started():
        for pid in filter(alive, started["pids"]):
            os.kill(pid, signal.SIGKILL)


def on_pod(tools, subcommand, *args):
    return launch("launch_tpu", subcommand, "--name=pod", *args, env=tools.env)


def test_a_run_reaches_the_host_unchanged_outlives_the_connection_and_stops_saved(tools, host):
    result = on_pod(tools, "run", "--", *HARD)
    assert result.returncode == 0, result.stderr
    eventually(tools.started, "start")
    [started] = tools.started()
    assert (started["argv"], started["secret"]) == (HARD, "known-to-this-job")
    os.kill(started["pids"][0], signal.SIGHUP)  # what the end of an ssh connection may send

    again = on_pod(tools, "run", "--", "train")
    assert again.returncode == 2
    assert "a run is in progress" in again.stderr
    eventually(lambda: "started" in on_pod(tools, "logs").stdout, "output in the log")
    assert alive(started["pids"][0])

    stopped = on_pod(tools, "stop")
    assert stopped.returncode == 0, stopped.stderr
    assert not alive(started["pids"][0])
    assert "saved" in stopped.stdout
    eventually(lambda: "ended with status 143" in on_pod(tools, "logs").stdout, "status in the log")

    assert on_pod(tools, "stop").returncode == 2  # there is nothing left to stop
    assert on_pod(tools, "run", "--", "train").returncode == 0
    eventually(lambda: len(tools.started()) == 2, "the second run")
    log = (host / "switchx-run" / "log").read_text()
    assert log.count("got SIGTERM") == 1  # the first run's output is kept


def test_stopping_a_run_that_does_not_leave_says_what_to_do(tools, host):
    assert on_pod(tools, "run", "--", "train", "--stubborn").returncode == 0
    eventually(tools.started, "start")
    late = on_pod(tools, "stop", "--timeout=1")
    assert late.returncode == 2
    assert "still running after 1 s; wait longer with --timeout" in late.stderr
    assert on_pod(tools, "stop", "--signal=KILL").returncode == 0
    assert not alive(tools.started()[0]["pids"][0])


def test_a_stale_process_number_is_not_taken_for_a_run(tools, host):
    stranger = subprocess.Popen(["sleep", "60"])  # after a reboot, the number is somebody else's
    (host / "switchx-run").mkdir()
    (host / "switchx-run" / "pid").write_text(str(stranger.pid))
    assert "no run is in progress" in on_pod(tools, "stop").stderr
    assert on_pod(tools, "run", "--", "train").returncode == 0
    eventually(tools.started, "start")
    assert stranger.poll() is None
    stranger.kill()


def test_a_model_directory_on_an_unmounted_bucket_is_refused(tools, host):
    tools.add("mountpoint", text="#!/bin/sh\nexit 1\n")
    result = on_pod(tools, "run", "--", "train", "--model_dir=/mnt/switchx/a")
    assert result.returncode == 2
    assert "no bucket at /mnt/switchx; mount it with setup --bucket" in result.stderr


@pytest.fixture
def checkout(tmp_path):
    """A repository of its own, so that the state of this one plays no part."""
    folder = tmp_path / "checkout"
    shutil.copytree(SCRIPTS, folder / "scripts")
    (folder / ".gitignore").write_text("/build/\n")

    def git(*args):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", *identity, *args], cwd=folder, check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init", "-q")
    git("add", "-A")
    git("commit", "-q", "-m", "first")
    return folder, git("rev-parse", "--short=12", "HEAD")


def test_setup_sends_the_commit_and_installs_and_mounts_it(tools, checkout, tmp_path):
    folder, commit = checkout
    home = tmp_path / "home"
    home.mkdir()
    tools.env["HOME"] = str(home)
    tools.add("make", "python3", "gcsfuse")
    tools.add("mountpoint", text="#!/bin/sh\nexit 1\n")
    tools.add("sudo", text="#!/bin/sh\nexit 0\n")
    copy = SSH.replace("[command]", 'if "scp" in sys.argv:\n    sys.exit(copy())\n[command]')
    copy = copy.replace(
        "import os, subprocess, sys\n",
        "import os, shutil, subprocess, sys\n"
        "def copy():\n"
        "    assert sys.argv[6:] == ['pod:', '--worker=all'], sys.argv\n"
        "    shutil.copy(sys.argv[5], os.environ['HOME'])\n",
    )
    tools.add("gcloud", text=copy)
    (folder / "scripts" / "new.sh").write_text("echo new\n")

    args = ("setup", "--name=pod", "--bucket=my-bucket")
    result = launch("launch_tpu", *args, env=tools.env, scripts=folder / "scripts")
    assert result.returncode == 0, result.stderr
    assert f"uncommitted changes are not sent, only commit {commit}" in result.stderr

    archive = folder / "build" / f"switchx-{commit}.tar.gz"
    with tarfile.open(archive) as tar:
        assert f"switchx-{commit}/scripts/tpu_host.sh" in tar.getnames()
    assert (home / "switchx").readlink() == Path(f"switchx-{commit}")
    assert not (home / "switchx" / "scripts" / "new.sh").exists()
    assert [
        "make",
        "install",
        "EXTRAS=tpu cloud",
        f"PYTHON={tools.folder}/python3",
    ] in tools.calls()
    assert tools.calls()[-1] == [
        "gcsfuse",
        "--implicit-dirs",
        "--rename-dir-limit=200000",
        "--metadata-cache-ttl-secs=0",
        "--metadata-cache-negative-ttl-secs=0",
        "my-bucket",
        "/mnt/switchx",
    ]

    # A folder of that name which we did not make stays as it is.
    (home / "switchx").unlink()
    (home / "switchx").mkdir()
    again = launch("launch_tpu", *args, env=tools.env, scripts=folder / "scripts")
    assert again.returncode == 2
    assert "~/switchx is in the way" in again.stderr
    assert list((home / "switchx").iterdir()) == []


def test_an_old_python_gets_a_newer_one_beside_it(tools, host):
    """Ubuntu 22.04 of the TPU images has 3.10."""
    tools.add("python3", "python3.11", "python3.12", "python3.13", text="#!/bin/sh\nexit 1\n")
    install = f"*python3.12-venv) printf '#!/bin/sh\\n' >{tools.folder}/python3.12 ;;"
    tools.add("make").add(
        "sudo", text=RECORDER.replace("if [[", f'case "$*" in {install} esac\nif [[', 1)
    )
    script = host / "switchx" / "scripts" / "tpu_host.sh"
    subprocess.run([script, "install"], env=tools.env, check=True)
    commands = [" ".join(call) for call in tools.calls()]
    assert commands[0] == "sudo add-apt-repository -y ppa:deadsnakes/ppa"
    assert commands[-1] == f"make install EXTRAS=tpu cloud PYTHON={tools.folder}/python3.12"


def test_another_bucket_at_the_mount_point_is_refused(tools, host):
    tools.add("mountpoint", text="#!/bin/sh\nexit 0\n")
    tools.add("findmnt", text="#!/bin/sh\necho first\n")
    command = [host / "switchx" / "scripts" / "tpu_host.sh", "mount"]
    assert subprocess.run([*command, "first"], env=tools.env).returncode == 0
    result = subprocess.run([*command, "second"], env=tools.env, capture_output=True, text=True)
    assert result.returncode == 2
    assert "/mnt/switchx holds another bucket, first, not second" in result.stderr


@pytest.mark.parametrize(
    ("states", "status"),
    [
        (["WAITING_FOR_RESOURCES", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"], 0),
        (["WAITING_FOR_RESOURCES", "FAILED"], 1),
        (["SUSPENDED"], 1),
    ],
)
def test_wait_asks_until_the_slice_is_there_or_never_will_be(tools, states, status):
    tools.add("gcloud").add("sleep", text='#!/bin/sh\n[ "$1" = 7 ]\n')
    tools.states.write_text("".join(f"{state}\n" for state in states))
    result = launch("launch_tpu", "wait", "--name=pod", "--poll=7", env=tools.env)
    assert result.returncode == status
    assert len(tools.calls()) == len(states)
    said = [line.split()[-1] for line in result.stderr.splitlines() if " is " in line]
    assert said == list(dict.fromkeys(states))


def test_gclouds_failure_is_the_launchers(tools):
    tools.add("gcloud")
    tools.env["STATUS"] = "3"
    for subcommand in ("status", "wait", "delete", "logs"):
        assert on_pod(tools, subcommand).returncode == 3


# --- GKE: through xpk's container


# How xpk starts a command and hands on the SIGTERM of a pod that must go.
CONTAINER = """
trap 'kill -TERM $! 2>/dev/null' TERM
({command}) & PID=$!
while kill -0 $PID 2>/dev/null; do sleep 0.1; done
wait $PID
exit $?
"""


@pytest.mark.parametrize("image", [True, False])
def test_a_workload_gets_its_arguments_and_its_signal(tools, tmp_path, image):
    args = ["run", "--cluster=c", "--topology=v5e-8", "--name=a"]
    args += ["--docker_image=i"] if image else []
    (words,) = dry_run("launch_gke", *args, "--", *HARD)
    [command] = [w.removeprefix("--command=") for w in words if w.startswith("--command=")]
    executable(tmp_path / ".venv" / "bin" / "switchx", STUB)
    tools.add("switchx", text=STUB).add("make")
    container = subprocess.Popen(
        ["bash", "-c", CONTAINER.format(command=command)],
        env=tools.env,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    eventually(tools.started, "start")
    container.send_signal(signal.SIGTERM)
    output, _ = container.communicate(timeout=20)
    [started] = tools.started()
    assert (started["argv"], started["secret"]) == (HARD, "known-to-this-job")
    assert not alive(started["pids"][0])
    assert "saved" in output
    assert container.returncode == 143
    assert tools.calls() == ([] if image else [["make", "install", "EXTRAS=tpu cloud"]])


# --- SLURM: through the job script


@pytest.mark.parametrize(("status", "requeued"), [(0, False), (1, False), (143, True)])
def test_a_job_passes_arguments_on_and_requeues_only_what_was_saved(tools, status, requeued):
    _, words = dry_run("launch_slurm", "run", "--nodes=2", "--switchx=my switchx", "--", *HARD)
    script = words[-1].removeprefix("--wrap=")
    tools.add("scontrol")
    keep_secret = '[ -z "$SWITCHX_JOB_SECRET" ] || echo "$SWITCHX_JOB_SECRET" >"$RECORD.secret"\n'
    tools.add(
        "srun",
        text=RECORDER.replace("${STATUS:-0}", str(status)).replace("exit", keep_secret + "exit"),
    )
    job = subprocess.run(["sh", "-c", script], env={**tools.env, "SLURM_JOB_ID": "12"})
    assert re.fullmatch("[0-9a-f]{32}\n", Path(f"{tools.record}.secret").read_text())
    srun, *others = tools.calls()
    assert srun[srun.index("--label") + 1 :] == ["my switchx", *HARD]
    assert others == ([["scontrol", "requeue", "12"]] if requeued else [])
    assert job.returncode == status
