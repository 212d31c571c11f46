"""Files behind URLs: read like local ones, tried again while they fail, given up in time."""

import json
import sys

import fsspec
import pytest

from switchx.data import eval_batches, train_stream
from switchx.data.tasks import lines
from switchx.errors import UserError
from switchx.storage import files, retries

from ..conftest import digest, docs_config, record, sentences, write_lines
from .remote_files import FlakyFileSystem

fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(files, "REMOTE_SECONDS", 0.3)
    monkeypatch.setattr(files, "LISTING_SECONDS", 0.3)
    monkeypatch.setattr(files, "REMOTE_CHUNK", 1000)
    FlakyFileSystem.reset()


@pytest.fixture
def content():
    """Some bytes, as flaky://data/bytes."""
    data = bytes(range(256)) * 40
    fsspec.filesystem("memory").pipe_file("/data/bytes", data)
    return data


def read(path="flaky://data/bytes"):
    return b"".join(files.chunks(path, "C4_JSON_TRAIN"))


def test_reads_in_chunks_through_one_open_file(content):
    assert list(map(len, files.chunks("flaky://data/bytes", "X"))) == [1000] * 10 + [240]
    assert FlakyFileSystem.opened == 1


@pytest.mark.parametrize("trouble", ["failures", "hangs"])
@pytest.mark.parametrize("after", [0, 4])
def test_goes_on_at_the_same_place(content, trouble, after):
    found = files.chunks("flaky://data/bytes", "X")
    begin = b"".join(next(found) for _ in range(after))
    setattr(FlakyFileSystem, trouble, retries.TRIES - 1)
    assert begin + b"".join(found) == content


@pytest.mark.parametrize(
    ("trouble", "why"),
    [("failures", "ConnectionResetError: connection reset by peer"), ("hangs", "no answer within")],
)
def test_gives_up(content, trouble, why):
    setattr(FlakyFileSystem, trouble, float("inf"))
    sentence = rf"C4_JSON_TRAIN leads to '.*data/bytes', which .* after 6 tries \(.*{why}"
    with pytest.raises(UserError, match=sentence):
        read()
    assert FlakyFileSystem.calls == retries.TRIES


def test_waits_grow(content, monkeypatch, capsys):
    waits = []
    monkeypatch.setattr(retries, "FIRST_WAIT", 1.0)
    monkeypatch.setattr(retries.time, "sleep", waits.append)
    FlakyFileSystem.failures = float("inf")
    with pytest.raises(UserError):
        read()
    assert waits == [1, 2, 4, 8, 16]
    assert "data/bytes cannot be read (connection reset by peer); trying again in 16 s" in (
        capsys.readouterr().err
    )


def test_what_does_not_pass_is_tried_once():
    with pytest.raises(UserError, match=r"which cannot be read \(FileNotFoundError"):
        read("flaky://data/no-such-file")
    assert FlakyFileSystem.calls == 1


def test_a_connection_that_ends_early(content, monkeypatch):
    from . import remote_files

    whole = remote_files._FlakyFile.read
    cut = [b"", b""]
    monkeypatch.setattr(
        remote_files._FlakyFile, "read", lambda *args: cut.pop() if cut else whole(*args)
    )
    assert read() == content


def test_listing_is_tried_again(content):
    FlakyFileSystem.failures = 3
    assert files.list_sizes("flaky://data/b*", "X") == {"flaky:///data/bytes": len(content)}
    FlakyFileSystem.failures = float("inf")
    with pytest.raises(UserError, match=r"C4_JSON_TRAIN leads to 'flaky://data/b\*', which .* 6 t"):
        files.list_matches("flaky://data/b*", "C4_JSON_TRAIN")


@pytest.mark.parametrize(
    ("url", "why"),
    [("s3://bucket/x", "Install s3fs"), ("nosuch://bucket/x", "Protocol not known: nosuch")],
)
def test_a_missing_package(url, why, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)  # as where it is not installed
    with pytest.raises(UserError, match=rf"VOCABULARY leads to '{url}', .*{why}.*switchx\[cloud\]"):
        files.read_bytes(url, "VOCABULARY")


@pytest.fixture
def remote_config(tmp_path, t5_model):
    """The same shards in memory, behind flaky://, and on this machine; the config of a place."""
    memory = fsspec.filesystem("memory")
    for number in range(3):
        name = f"train-{number}.json.gz"
        write_lines(tmp_path / name, map(record, sentences(40, seed=number)))
        memory.pipe_file(f"/c4/{name}", (tmp_path / name).read_bytes())
    write_lines(tmp_path / "validation.json", map(record, sentences(40, seed=9)))
    memory.pipe_file("/c4/validation.json", (tmp_path / "validation.json").read_bytes())
    places = {"local": str(tmp_path), "memory": "memory://c4", "flaky": "flaky://c4"}

    def make(place):
        return docs_config(
            mixture_or_task_name="c4_json_span_corruption",
            json_train_glob=f"{places[place]}/train-*.json.gz",
            json_validation_glob=f"{places[place]}/validation.json",
            vocabulary=t5_model,
        )

    return make


def test_rows_are_those_of_local_files(remote_config):
    local, memory = (list(eval_batches(remote_config(place))) for place in ("local", "memory"))
    assert list(map(digest, memory)) == list(map(digest, local))


def test_training_outlives_failures(remote_config):
    quiet = train_stream(remote_config("local"))
    expected = [digest(next(quiet)) for _ in range(6)]
    stream = train_stream(remote_config("flaky"))
    found = []
    for _ in range(6):
        FlakyFileSystem.failures = 3
        found.append(digest(next(stream)))
    assert found == expected


def test_training_stops_with_one_sentence(remote_config):
    stream = train_stream(remote_config("flaky"))
    FlakyFileSystem.failures = float("inf")
    with pytest.raises(UserError, match=r"C4_JSON_TRAIN leads to 'flaky:///c4/train-.* 6 tries"):
        next(stream)


def test_text_that_is_not_json_lines(monkeypatch):
    """Lines are split as a plain reading would, wherever the chunks end."""
    data = b"one\r\n\n" + json.dumps({"text": "x" * 50}).encode() + b"\nlast"
    fsspec.filesystem("memory").pipe_file("/data/lines", data)
    for size in (1, 2, 7, 1000):
        monkeypatch.setattr(files, "REMOTE_CHUNK", size)
        assert list(lines.read_lines("memory://data/lines", "X")) == data.split(b"\n")
