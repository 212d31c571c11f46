"""A new directory is there whole or not at all; one to write in is made or refused."""

import signal
import subprocess
import sys

import pytest

from switchx import storage
from switchx.errors import RunError, UserError


def test_it_gets_its_name_at_the_end(tmp_path):
    with storage.new_directory(tmp_path / "a" / "b", "--output", "file") as part:
        (part / "file").write_text("x")
        assert not (tmp_path / "a" / "b").exists()
    assert (tmp_path / "a" / "b" / "file").read_text() == "x"
    assert len(list((tmp_path / "a").iterdir())) == 1


def test_nothing_is_left_of_one_that_failed(tmp_path):
    def fill(error):
        with storage.new_directory(tmp_path / "a", "X", "file") as part:
            (part / "file").write_text("x")
            raise error

    with pytest.raises(ZeroDivisionError):
        fill(ZeroDivisionError())
    with pytest.raises(RunError, match=r"a cannot be written \(no space left\)"):
        fill(OSError("no space left"))
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_stays(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "link"):
        with pytest.raises(UserError, match=rf"--output='.*{name}' exists already: give the name"):
            storage.check_new(tmp_path / name, "--output")
    late = storage.new_directory(tmp_path / "late", "X", "file")
    late.__enter__()
    (tmp_path / "late").write_text("another process was first")
    with pytest.raises(UserError, match="exists already"):
        late.__exit__(None, None, None)
    assert (tmp_path / "late").read_text() == "another process was first"
    with pytest.raises(UserError, match=r"X='.*' lies below a file, .*: name another"):
        storage.new_directory(tmp_path / "file" / "below", "X", "file").__enter__()


FILL = """
import sys, time
from switchx import storage
with storage.new_directory(sys.argv[1], "X", "file") as part:
    (part / "file").write_text("half")
    print("half", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_ends_in_between(tmp_path, end):
    path = tmp_path / "new"
    command = [sys.executable, "-c", FILL, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as other:
        assert other.stdout.readline() == b"half\n"
        other.send_signal(end)
    assert not path.exists()
    storage.remove_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_one_to_write_in_is_made_with_its_parents(tmp_path):
    path = tmp_path / "a" / "b"
    for _ in range(2):
        storage.make_directory(path, "MODEL_DIR")
        assert list(path.iterdir()) == []


@pytest.mark.parametrize("below", ["", "run"])
def test_a_file_is_refused(tmp_path, below):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"MODEL_DIR='.*file.*' is a file"):
        storage.make_directory(tmp_path / "file" / below, "MODEL_DIR")
    assert (tmp_path / "file").read_text() == "x"


def test_an_unwritable_directory_is_refused(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    # Permissions do not stop the superuser, who may be running this.
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(UserError, match=r"cannot be written to \(Permission denied\)"):
        storage.make_directory(tmp_path, "MODEL_DIR")


def test_a_new_place_below_a_file_is_refused_before_anything_is_made(tmp_path):
    (tmp_path / "file").write_text("kept")
    for check in (storage.check_new, storage.check_new_file):
        for below in ("file/new", "file/new/newer"):
            with pytest.raises(UserError, match=r"--output='.*' lies below a file, .*/file: name"):
                check(tmp_path / below, "--output")
    assert storage.check_new(tmp_path / "new/newer", "--output") == tmp_path / "new/newer"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
