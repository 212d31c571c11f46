"""Files are there whole or not at all, through failures, full disks and kill -9."""

import os
import signal
import stat
import subprocess
import sys

import fsspec
import pytest

from switchx import storage
from switchx.errors import RunError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    storage.write_whole(path, "old")
    file = storage.whole_file(path)
    file.__enter__().write_text("half of the new")
    error = OSError("no space left")
    with pytest.raises(RunError, match=r"file cannot be written \(no space left\)\."):
        file.__exit__(type(error), error, None)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_others_may_read_what_the_umask_lets_them(tmp_path):
    before = os.umask(0o027)
    try:
        storage.write_whole(tmp_path / "file", "x")
        with storage.new_directory(tmp_path / "folder", "X", "file"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o750


def test_a_name_as_long_as_the_file_system_takes(tmp_path):
    storage.write_whole(tmp_path / ("n" * 255), "x")
    with pytest.raises(RunError, match=r"cannot be written \(File name too long"):
        storage.write_whole(tmp_path / ("n" * 256), "x")
    assert len(list(tmp_path.iterdir())) == 1


def test_behind_a_url_an_upload_is_tried_again(flaky, tmp_path):
    flaky.failures = 3
    storage.write_whole(f"flaky://{tmp_path}/file", "text")
    assert fsspec.filesystem("memory").cat_file(f"{tmp_path}/file") == b"text"
    flaky.failures = float("inf")
    with pytest.raises(RunError, match=r"flaky://.*/other cannot be written \(.*reset.*, after 6"):
        storage.write_whole(f"flaky://{tmp_path}/other", "text")
    with pytest.raises(RunError, match=r"nosuch://a/b cannot be written \(Protocol not known"):
        storage.write_whole("nosuch://a/b", "text")


WRITE = """
import sys
from pathlib import Path
from switchx import storage
a, b = (letter * 3_000_000 for letter in "ab")
print("began", flush=True)
while True:
    storage.write_whole(sys.argv[1], a)
    storage.write_whole(sys.argv[1], b)
"""


def test_kill_in_the_middle_of_a_write(tmp_path):
    """Whenever it comes, what can be read is all of one content."""
    path = tmp_path / "file"
    for kill in range(6):
        command = [sys.executable, "-c", WRITE, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout.readline() == b"began\n"
            while not path.exists():
                pass
            with pytest.raises(subprocess.TimeoutExpired):
                writer.wait(0.013 * (kill + 1))
            writer.kill()
        text = path.read_text()
        assert text in ("a" * 3_000_000, "b" * 3_000_000)
    (tmp_path / ".0123.part").write_text("of one that was killed")  # if no kill left any
    (tmp_path / ".lock").write_text("kept")
    storage.remove_unfinished(tmp_path)
    assert {left.name for left in tmp_path.iterdir()} == {"file", ".lock"}


FULL = """
import resource, signal, sys
from switchx import storage
from switchx.errors import RunError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
appender = storage.open_appender(sys.argv[3])
for number in range(3):
    try:
        if number == 0:
            storage.write_whole(sys.argv[1], "x" * 20_000)
        elif number == 1:
            with storage.new_directory(sys.argv[2], "--output", "file") as folder:
                (folder / "a").write_text("x" * 20_000)
        else:
            while True:
                appender.append(b"x" * 999 + b"\\n")
                appender.flush()
    except RunError as error:
        print(error)
"""


def test_a_full_disk(tmp_path):
    """A limit to the size of files stands for it."""
    (tmp_path / "old").write_text("old")
    names = [str(tmp_path / name) for name in ("old", "folder", "lines")]
    done = subprocess.run([sys.executable, "-c", FULL, *names], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [f"{n} cannot be written (File too large)." for n in names]
    assert {path.name for path in tmp_path.iterdir()} == {"old", "lines"}
    assert (tmp_path / "old").read_text() == "old"
    assert (tmp_path / "lines").read_text() == ("x" * 999 + "\n") * 10


APPEND = """
import sys
from switchx import storage
appender = storage.open_appender(sys.argv[1])
for number in range(10**9):
    appender.append(b"%d\\n" % number)
    if number % 10 == 9:
        appender.flush()
        print(number, flush=True)
"""


def test_what_was_flushed_outlives_a_kill(tmp_path):
    path = tmp_path / "folder" / "lines"
    with subprocess.Popen([sys.executable, "-c", APPEND, str(path)], stdout=subprocess.PIPE) as it:
        for _ in range(5):
            flushed = int(it.stdout.readline())
        it.send_signal(signal.SIGKILL)
    lines = path.read_bytes().split(b"\n")
    assert lines[:-1] == [b"%d" % number for number in range(len(lines) - 1)]
    assert len(lines) > flushed == 49
    appender = storage.open_appender(path, keep=lambda content: content[:6])
    appender.append(b"on")
    appender.close()
    assert path.read_bytes() == b"0\n1\n2\non"
