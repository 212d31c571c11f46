"""What a user's path means; a URL where only this machine will do is refused, nothing is made."""

import re
from pathlib import Path

import pytest

from switchx import storage
from switchx.errors import UserError


@pytest.mark.parametrize(
    "path", ["gs://bucket/run", "s3://bucket/run", "file:///tmp/run", "nosuch+x://a", "HTTPS://h/x"]
)
def test_a_url_is_refused_and_nothing_is_made(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    scheme = re.escape(path.partition("://")[0])
    with pytest.raises(
        UserError,
        match=rf"MODEL_DIR='.*' is a URL, .* at {scheme}:// yet: name",
    ):
        storage.local_path(path, "MODEL_DIR")
    assert storage.is_remote(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_no_name_of_a_file(path):
    with pytest.raises(UserError, match=r"--output='.*' names no file: give a path"):
        storage.local_path(path, "--output")


@pytest.mark.parametrize("path", ["runs/a", "a b", "ä#%?", "run[1]*", "c::d", "1://x", "a:/b", "é"])
def test_any_other_name_is_local(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    found = storage.local_path(path, "MODEL_DIR")
    assert found == Path(path)
    storage.write_whole(path, "text")
    assert found.read_text() == "text"
    assert storage.read_bytes(path, "X") == b"text"
    assert storage.list_files(path, "X") == {path: 4}


def test_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert storage.local_path("~/run", "X") == Path("/home/someone/run")
    assert storage.expanded("~/run") == "/home/someone/run"
    assert storage.expanded("gs://b/~") == "gs://b/~"
