"""Several local processes: a command line for all, marked output, no orphans, one status."""

import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

from tests.scripts.launching import HARD, SCRIPTS, STUB, alive, eventually, executable

# Runs a command as what is in front on the terminal that is its input.
IN_FRONT = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


class Local:
    """A running launch_local with the stand-in, on a terminal if asked."""

    def __init__(
        self, tools, tmp_path, *args, options=("--processes=3",), terminal=False, scripts=SCRIPTS
    ):
        stub = executable(tmp_path / "stub", STUB)
        command = [scripts / "launch_local.sh", f"--switchx={stub}", *options, "--", *args]
        self.terminal, inner = os.openpty() if terminal else (None, None)
        self.process = subprocess.Popen(
            [sys.executable, "-c", IN_FRONT, *command] if terminal else command,
            env=tools.env,
            stdin=inner,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.tools = tools

    def wait_for_start(self, count=3):
        eventually(lambda: len(self.tools.started()) == count, "start of all processes")

    def end(self):
        """Output and exit status, once nothing is left running."""
        output, _ = self.process.communicate(timeout=30)
        left = [pid for started in self.tools.started() for pid in started["pids"] if alive(pid)]
        assert left == []
        return output, self.process.returncode


def test_processes_share_a_command_line_and_a_secret_and_know_their_place(tools, tmp_path):
    del tools.env["SWITCHX_JOB_SECRET"]
    leave = [f"--leave={process}:0" for process in range(3)]
    options = ("--processes=3", "--cpu_devices=2")
    output, status = Local(tools, tmp_path, *HARD, *leave, options=options).end()
    assert status == 0
    lines = {tuple(started["argv"][: len(HARD)]) for started in tools.started()}
    assert lines == {tuple(HARD)}
    (secret,) = {started["secret"] for started in tools.started()}
    assert re.fullmatch("[0-9a-f]{32}", secret)
    places = sorted(started["argv"][-3:] for started in tools.started())
    assert places == [
        ["--num_processes=3", f"--process_id={process}", "--cpu_devices=2"] for process in range(3)
    ]
    coordinators = {started["argv"][-4] for started in tools.started()}
    assert len(coordinators) == 1
    assert re.fullmatch(r"--coordinator_address=127\.0\.0\.1:[1-9]\d{4}", coordinators.pop())
    assert sorted(output.splitlines()) == [f"[{process}] started" for process in range(3)]


def test_the_first_failure_ends_the_others_and_is_the_status(tools, tmp_path):
    output, status = Local(tools, tmp_path, "train", "--leave=1:7").end()
    assert status == 7
    assert "launch_local: process 1 ended with status 7" in output
    assert "[0] got SIGTERM" in output
    assert "[2] saved" in output


def test_a_failure_at_the_end_of_the_others_still_counts(tools, tmp_path):
    leave = ["--leave=0:0", "--leave=1:5", "--leave=2:0"]
    assert Local(tools, tmp_path, "train", *leave).end()[1] == 5


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_goes_to_all_once_and_they_save(tools, tmp_path, number, status):
    local = Local(tools, tmp_path, "train")
    local.wait_for_start()
    local.process.send_signal(number)
    output, code = local.end()
    assert code == status
    for process in range(3):
        assert output.count(f"[{process}] got {number.name}") == 1
        assert output.count(f"[{process}] saved") == 1


def test_ctrl_c_on_a_terminal_is_one_signal_to_each(tools, tmp_path):
    local = Local(tools, tmp_path, "train", terminal=True)
    local.wait_for_start()
    os.write(local.terminal, b"\x03")
    output, code = local.end()
    assert code == 130
    for process in range(3):
        assert output.count(f"[{process}] got SIGINT") == 1
        assert output.count(f"[{process}] saved") == 1


def test_what_does_not_leave_is_killed_after_the_grace(tools, tmp_path):
    options = ("--processes=2", "--grace=1")
    local = Local(tools, tmp_path, "train", "--stubborn", options=options)
    local.wait_for_start(2)
    local.process.send_signal(signal.SIGTERM)
    output, code = local.end()
    assert "[1] got SIGTERM" in output
    assert code == 137


def test_an_update_of_the_script_leaves_a_run_alone(tools, tmp_path):
    scripts = shutil.copytree(SCRIPTS, tmp_path / "scripts")
    local = Local(tools, tmp_path, "train", scripts=scripts)
    local.wait_for_start()
    script = scripts / "launch_local.sh"
    script.write_text(script.read_text().replace("\n#\n", "\n# A longer header.\n", 1))
    local.process.send_signal(signal.SIGTERM)
    assert local.end()[1] == 143


def test_children_that_processes_leave_behind_are_ended(tools, tmp_path):
    leave = ["--leave=0:0", "--leave=1:0", "--leave=2:0"]
    assert Local(tools, tmp_path, "train", "--orphan", *leave).end()[1] == 0
