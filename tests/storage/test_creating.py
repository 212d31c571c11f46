"""Of many that make a file one does, wherever it lies; and it is whole."""

import errno
import threading

import pytest

from switchx import storage
from switchx.errors import RunError, UserError


def race(path, count=8):
    """The contents of those that were told they made it."""
    together, made = threading.Barrier(count), []

    def make(content):
        together.wait()
        if storage.create_once(path, content, "DIR"):
            made.append(content)

    threads = [threading.Thread(target=make, args=(f"{n}" * 999,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return made


def test_one_of_many_makes_it_on_a_disk(tmp_path):
    for number in range(20):
        path = tmp_path / "new" / f"{number}"
        (made,) = race(path)
        assert path.read_text() == made
    assert len(list((tmp_path / "new").iterdir())) == 20  # and nothing else is left


def test_one_of_many_makes_it_in_a_bucket(store):
    path = f"{store.folder()}/one"
    (made,) = race(path)
    assert storage.read_bytes(path, "X") == made.encode()


def test_an_answer_that_is_lost_does_not_make_it_anothers(store, quick):
    """The write was done, and the second try finds it so."""
    lost = iter(["lost", *[None] * 20])
    store.choose = lambda method, path: next(lost) if method in ("POST", "PUT") else None
    path = f"{store.folder()}/one"
    assert storage.create_once(path, "mine", "DIR")
    store.reset()
    assert not storage.create_once(path, "another's", "DIR")


def test_an_answer_that_is_lost_over_nfs(tmp_path, monkeypatch):
    """The client asks again, and is told that the name is taken: by itself."""
    import os

    def link(source, target):
        real(source, target)
        raise FileExistsError(errno.EEXIST, "File exists")

    real = os.link
    monkeypatch.setattr("os.link", link)
    assert storage.create_once(tmp_path / "one", "mine", "DIR")
    monkeypatch.setattr("os.link", real)
    assert not storage.create_once(tmp_path / "one", "another's", "DIR")
    assert (tmp_path / "one").read_text() == "mine"


def test_a_file_system_without_links(tmp_path, monkeypatch):
    def link(source, target):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", link)
    (made,) = race(tmp_path / "one")
    assert [path.read_text() for path in tmp_path.iterdir()] == [made]


def test_where_it_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file/one cannot be written \(File exists\)"):
        storage.create_once(tmp_path / "file" / "one", "x", "DIR")
    with pytest.raises(UserError, match="DIR='memory://a/one' cannot be written to by one"):
        storage.create_once("memory://a/one", "x", "DIR")
