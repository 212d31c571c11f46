"""Data behind URLs: the same rows as from local files, also while reads fail for a time."""

import json

import fsspec
import pytest

from switchx.data import eval_batches, train_stream
from switchx.data.files import open_records
from switchx.errors import UserError
from switchx.storage import reading
from tests.storage.conftest import flaky  # noqa: F401  (a fixture)
from tests.storage.flaky import FlakyFileSystem

from ..conftest import digest, docs_config, record, sentences, write_lines

pytestmark = pytest.mark.usefixtures("flaky")


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


def test_lines_of_text(monkeypatch):
    """Lines are split as a plain reading would, wherever the chunks end."""
    data = b"one\r\n\n" + json.dumps({"text": "x" * 50}).encode() + b"\nlast"
    fsspec.filesystem("memory").pipe_file("/data/lines", data)
    for size in (1, 2, 7, 1000):
        monkeypatch.setattr(reading, "REMOTE_CHUNK", size)
        found = [record.content for record in open_records("memory://data/lines", "X").read()]
        assert found == data.split(b"\n")
