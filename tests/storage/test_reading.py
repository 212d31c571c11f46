"""Files are read and listed alike wherever they lie; what fails is tried again, then explained."""

import os
import threading

import fsspec
import pytest

from switchx import storage
from switchx.errors import UserError
from switchx.storage import retries

from . import flaky as flaky_module


@pytest.fixture
def content():
    """Some bytes, as flaky://data/bytes."""
    data = bytes(range(256)) * 40
    fsspec.filesystem("memory").pipe_file("/data/bytes", data)
    return data


def read(path="flaky://data/bytes"):
    return b"".join(storage.chunks(path, "C4_JSON_TRAIN"))


def test_reads_in_chunks_through_one_open_file(flaky, content):
    found = list(map(len, storage.chunks("flaky://data/bytes", "X")))
    assert found == [1000] * 10 + [240]
    assert flaky.opened == 1


@pytest.mark.parametrize("trouble", ["failures", "hangs"])
@pytest.mark.parametrize("after", [0, 4])
def test_goes_on_at_the_same_place(flaky, content, trouble, after):
    found = storage.chunks("flaky://data/bytes", "X")
    begin = b"".join(next(found) for _ in range(after))
    setattr(flaky, trouble, 2)
    assert begin + b"".join(found) == content


@pytest.mark.parametrize(
    ("trouble", "why"),
    [("failures", "ConnectionResetError: connection reset by peer"), ("hangs", "no answer within")],
)
def test_gives_up(flaky, content, monkeypatch, trouble, why):
    monkeypatch.setattr("switchx.storage.reading.REMOTE_SECONDS", 0.05)
    setattr(flaky, trouble, float("inf"))
    sentence = rf"C4_JSON_TRAIN leads to '.*data/bytes', which .*{why}.*, after 6 tries\)"
    with pytest.raises(UserError, match=sentence):
        read()
    assert flaky.calls == retries.TRIES


def test_waits_grow(flaky, content, monkeypatch, capsys):
    waits = []
    monkeypatch.setattr(retries, "FIRST_WAIT", 1.0)
    monkeypatch.setattr(retries.time, "sleep", waits.append)
    flaky.failures = float("inf")
    with pytest.raises(UserError):
        read()
    assert waits == [1, 2, 4, 8, 16]
    said = "cannot be read (ConnectionResetError: connection reset by peer); trying again in"
    assert f"flaky://data/bytes {said} 16 s" in capsys.readouterr().err


def test_a_try_that_hung_is_said_before_the_next(flaky, content, monkeypatch, capsys):
    monkeypatch.setattr("switchx.storage.reading.REMOTE_SECONDS", 0.05)
    monkeypatch.setattr(retries, "_QUIET_WAIT", 0.04)
    flaky.hangs = 1
    assert read() == content
    said = "flaky://data/bytes cannot be read (TimeoutError: no answer within 0 s); trying again"
    assert capsys.readouterr().err == f"switchx: {said} in 0 s\n"


def test_what_does_not_pass_is_tried_once(flaky):
    with pytest.raises(UserError, match=r"which cannot be read \(No such file"):
        read("flaky://data/no-such-file")
    assert flaky.calls == 1


def test_a_connection_that_ends_early(flaky, content, monkeypatch):
    whole = flaky_module._FlakyFile.read
    cut = [b"", b""]
    monkeypatch.setattr(
        flaky_module._FlakyFile, "read", lambda *args: cut.pop() if cut else whole(*args)
    )
    assert read() == content


def test_listing_is_tried_again(flaky, content):
    flaky.failures = 3
    assert storage.list_files("flaky://data/b*", "X") == {"flaky:///data/bytes": len(content)}
    flaky.failures = float("inf")
    with pytest.raises(UserError, match=r"C4_JSON_TRAIN leads to 'flaky://data/b\*', which .* 6 t"):
        storage.list_files("flaky://data/b*", "C4_JSON_TRAIN")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("abfs://bucket/x", "Install adlfs"),
        ("nosuch://bucket/x", "Protocol not known: nosuch"),
    ],
)
def test_a_missing_package(url, why):
    with pytest.raises(UserError, match=rf"VOCABULARY leads to '{url}', .*{why}"):
        storage.read_bytes(url, "VOCABULARY")


def test_a_call_in_time_raises_what_was_raised_in_its_thread():
    assert storage.in_time(lambda: threading.current_thread().name, 10) != "MainThread"
    with pytest.raises(ZeroDivisionError):
        storage.in_time(lambda: 1 / 0, 10)
    with pytest.raises(TimeoutError, match="no answer within 0 s"):
        storage.in_time(threading.Event().wait, 0.01)


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
    """A folder with two files and a folder, on this machine or behind a URL."""
    root = f"{tmp_path}/in" if request.param == "local" else f"memory://{tmp_path}/in"
    for name in ("a.txt", "b.txt", "deep/c.txt"):
        storage.write_whole(f"{root}/{name}", name * 2)
    return root


def test_what_is_there_and_what_is_not(folder):
    assert storage.read_bytes(f"{folder}/a.txt", "X") == b"a.txta.txt"
    assert storage.read_text(f"{folder}/a.txt", "X") == "a.txta.txt"
    assert storage.read_if_there(f"{folder}/a.txt", "X") == b"a.txta.txt"
    assert storage.read_if_there(f"{folder}/z.txt", "X") is None
    assert storage.size_of(f"{folder}/deep/c.txt", "X") == 20
    assert storage.size_of(f"{folder}/z.txt", "X") is None
    assert storage.names_in(folder, "X") == {"a.txt", "b.txt", "deep"}
    assert storage.names_in(f"{folder}/nowhere", "X") == set()
    assert storage.is_file(f"{folder}/a.txt", "X")
    assert storage.read_if_there(f"{folder}/a.txt/below", "X") is None
    assert storage.size_of(f"{folder}/a.txt/below", "X") is None
    assert storage.names_in(f"{folder}/a.txt/below", "X") == set()
    assert not storage.is_file(folder, "X")
    found = storage.list_files(f"{folder}/*.txt", "X")
    assert [(name[-5:], size) for name, size in found.items()] == [("a.txt", 10), ("b.txt", 10)]
    assert len(storage.list_files(f"{folder}/**/*.txt", "X")) == 3
    assert storage.list_files(f"{folder}/*.nothing", "X") == {}
    for name in ("set[1]/a[2].txt", "set1/b.txt", "set[1]/deep/c.txt"):
        storage.write_whole(f"{folder}/{name}", name)
    for pattern, names in (
        ("set[1]/*.txt", ["set[1]/a[2].txt"]),
        ("set[1]/**/*.txt", ["set[1]/a[2].txt", "set[1]/deep/c.txt"]),
        ("set[1]/[ab]*", ["set[1]/a[2].txt"]),
        ("set[12]/*.txt", ["set1/b.txt"]),
        ("set[1]/a[2].txt", ["set[1]/a[2].txt"]),
    ):
        found = storage.list_files(f"{folder}/{pattern}", "X")
        assert [path.partition("/in/")[2] for path in found] == names
    storage.remove(f"{folder}/set[1]")
    storage.remove(f"{folder}/set1")
    storage.remove(f"{folder}/a.txt")
    storage.remove(f"{folder}/a.txt")
    assert storage.names_in(folder, "X") == {"b.txt", "deep"}
    storage.remove(folder)
    assert storage.names_in(folder, "X") == set()


def test_why_a_glob_finds_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full/empty").mkdir(parents=True)
    (tmp_path / "link").symlink_to("nothing")
    os.mkfifo("pipe")
    for pattern, why in (
        ("full", "is a folder: give a glob of its files, as in 'full/*'"),
        ("full/empty/", "is an empty folder"),
        ("link", "is a link to nothing"),
        ("pipe", "is a pipe or a device"),
        ("full/*", "matches no file"),
        ("*.txt", "matches no file"),
    ):
        assert storage.list_files(pattern, "X") == {}
        assert storage.why_none(pattern, "X").startswith(f"X={pattern!r} {why}")

    def listed(folder):
        raise (PermissionError(13, "Permission denied") if folder == "full" else FileNotFoundError)

    monkeypatch.setattr(os, "listdir", listed)
    with pytest.raises(UserError, match=r"^X leads to 'full', which .*\(Permission denied\): give"):
        storage.why_none("full/*.txt", "X")


def test_a_file_that_is_too_large_or_no_text(tmp_path):
    (tmp_path / "file").write_bytes(b"\xff" * 11)
    assert len(storage.read_bytes(tmp_path / "file", "X", most=11)) == 11
    with pytest.raises(UserError, match=r"X leads to '.*file', which has more than 10 bytes: give"):
        storage.read_bytes(tmp_path / "file", "X", most=10)
    with pytest.raises(UserError, match=r"X leads to '.*file', which is not UTF-8: give"):
        storage.read_text(tmp_path / "file", "X")
    with pytest.raises(
        UserError, match=r"X leads to '.*', which cannot be read \(Is a directory\)"
    ):
        storage.read_bytes(tmp_path, "X")


def test_globs_find_the_home_folder_and_names_that_look_like_globs(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("a[1].txt", "a1.txt", "b.txt"):
        (tmp_path / name).write_text("x")
    assert list(storage.list_files("~/?.txt", "X")) == [f"{tmp_path}/b.txt"]
    assert list(storage.list_files("~/a[1].txt", "X")) == [f"{tmp_path}/a[1].txt"]
    assert storage.read_bytes("~/b.txt", "X") == b"x"
