"""What a user's path means; a URL where only this machine will do is refused, nothing is made."""

import os
import re
from pathlib import Path

import pytest

from switchx import storage
from switchx.errors import UserError
from switchx.storage import paths


@pytest.mark.parametrize(
    "path", ["gs://bucket/run", "s3://bucket/run", "nosuch+x://a", "HTTPS://h/x"]
)
def test_a_url_is_refused_and_nothing_is_made(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    scheme = re.escape(path.partition("://")[0])
    with pytest.raises(
        UserError,
        match=rf"MODEL_DIR='.*' is a URL, .* at {scheme}://: name",
    ):
        storage.local_path(path, "MODEL_DIR")
    assert storage.is_remote(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_no_name_of_a_file(path):
    with pytest.raises(UserError, match=r"--output='.*' names no file: give a path"):
        storage.local_path(path, "--output")


@pytest.mark.parametrize("name", ["é" * 128, os.fsdecode(b"a\xff")])
def test_a_name_that_not_all_can_use(tmp_path, monkeypatch, name):
    """No file has it, or TensorFlow, Orbax and pages of UTF-8 cannot name it."""
    monkeypatch.chdir(tmp_path)
    for path in (name, f"folder/{name}/below"):
        for use in (storage.local_path, storage.check_new, storage.make_directory):
            with pytest.raises(UserError, match=r"X='.*' has a name that is not UTF-8 or too long"):
                use(path, "X")
        assert not storage.is_file(path, "X")
        assert not storage.is_folder(path, "X")
    assert list(tmp_path.iterdir()) == []
    Path(os.fsdecode(b"b\xff")).touch()
    with pytest.raises(UserError, match=r"X='.*' has a name that is not UTF-8 or too long"):
        storage.list_files("b*", "X")


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
    assert storage.as_path("~/run") == Path("/home/someone/run")


def test_file_urls_are_of_this_machine():
    """With what stands for other characters in a URL, as `Path.as_uri` writes them."""
    for path in (Path("/tmp/run"), Path("/a b/ü#%?[1]")):
        assert storage.as_path(path.as_uri(), "X") == path
        assert not storage.is_remote(path.as_uri())
    assert storage.as_path("file://localhost/tmp/x") == Path("/tmp/x")
    with pytest.raises(UserError, match="X='file://host/x' is a URL, and X cannot be at file://"):
        storage.as_path("file://host/x", "X")


def test_a_url_is_joined_like_a_path():
    """Of the characters in a name none means anything."""
    path = storage.as_path("gs://bucket/a b/ü#%?[1]/") / "checkpoints" / "4"
    assert str(path) == "gs://bucket/a b/ü#%?[1]/checkpoints/4"
    assert (path.name, path.parent.name) == ("4", "checkpoints")
    assert (path / "loss.a.png").stem == "loss.a"
    assert storage.as_path(path) == path
    assert str(storage.as_path("gs://bucket") / "a") == "gs://bucket/a"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("gss://bucket/run", "has a scheme that is not known: name .* a URL as gs://"),
        ("nosuch://a", "has a scheme that is not known: name a path on this machine, or a URL as"),
        ("gs:///run", "names no bucket: write gs://BUCKET/NAME"),
        ("gs:/bucket/run", "is neither a URL nor a path: write gs://bucket/run or ./gs:/bucket"),
        ("abfs://c/run", r"needs a package that is not installed \(.*\): install it"),
        ("https://host/run", "cannot be written to: name a place on this machine, at gs:// or at"),
        ("", "names no file"),
    ],
)
def test_where_nothing_can_be_written(tmp_path, monkeypatch, path, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"MODEL_DIR={path!r} {says}"):
        storage.writable_path(path, "MODEL_DIR")
    assert list(tmp_path.iterdir()) == []


def test_where_nobody_could_write_is_said_at_once(tmp_path, monkeypatch):
    """gcsfs would go on as nobody, as it may for data that is public."""
    for name in ("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    paths._finds_google_account.cache_clear()
    with pytest.raises(UserError, match=r"MODEL_DIR='gs://b/x' cannot be written to without an ac"):
        storage.writable_path("gs://b/x", "MODEL_DIR")
    assert str(storage.as_path("gs://b/x")) == "gs://b/x"
    paths._finds_google_account.cache_clear()
