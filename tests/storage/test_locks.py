"""One process at a time, and none for longer than it lives."""

import errno
import os
import subprocess
import sys

import pytest

from switchx import storage
from switchx.errors import UserError

HOLD = """
import sys, time
from switchx import storage
with storage.exclusive_lock(sys.argv[1], "DIR='a'", "switchx test"):
    if sys.argv[2:]:  # a worker that outlives its parent must not keep the lock
        import os
        if os.fork() == 0:
            os.close(1)
            time.sleep(600)
            os._exit(0)
    print("held", flush=True)
    time.sleep(600)
"""


def lock(path):
    return storage.exclusive_lock(path, "DIR='a'", "switchx test")


@pytest.mark.parametrize("forks", [[], ["forks"]])
def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path, forks):
    """Also by kill -9, after which nothing is cleaned up."""
    path, command = tmp_path / "run" / ".lock", [sys.executable, "-c", HOLD]
    with subprocess.Popen(
        [*command, path, *forks], stdout=subprocess.PIPE, start_new_session=True
    ) as other:
        assert other.stdout.readline() == b"held\n"
        says = rf"DIR='a' is in use by another switchx test, process {other.pid} on \S+: wait"
        with pytest.raises(UserError, match=says), lock(path):
            pass
        other.kill()
    with lock(path):
        assert path.read_text().startswith(f"{os.getpid()} on ")
    if forks:
        os.killpg(other.pid, 9)


def test_a_second_time_in_one_process(tmp_path):
    with lock(tmp_path / ".lock"):
        with pytest.raises(UserError, match="in use by another switchx test, process this one"):  # noqa: SIM117
            with lock(tmp_path / "." / ".lock"):
                pass
        with lock(tmp_path / "other"):
            pass
    with lock(tmp_path / ".lock"):
        pass


def test_a_lock_whose_holder_removes_it_is_no_lock_any_more(tmp_path, monkeypatch):
    """Between the opening of the file and its locking it may have gone."""
    import fcntl

    taken, path = [], tmp_path / ".lock"

    def take(file, how):
        if not taken:
            path.unlink()
        taken.append(real(file, how))

    real = fcntl.lockf
    monkeypatch.setattr("fcntl.lockf", take)
    with lock(path):
        assert path.read_text().startswith(f"{os.getpid()} on ")
    assert len(taken) == 2


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, capfd):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.lockf", refuse)
    with lock(tmp_path / ".lock"):
        pass
    said = capfd.readouterr().err.splitlines()
    assert "DIR='a' is on a file system without locks (No locks available): make sure" in said[0]
