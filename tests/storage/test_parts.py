"""Parts of files at URLs: in few requests, whole, and tried again one by one."""

import itertools

import object_stores
import pytest

from switchx import storage
from switchx.errors import UserError
from switchx.storage import Part, parts

CONTENT = bytes(range(256)) * 2000


@pytest.fixture
def folder(store):
    folder = storage.as_path(f"{store.folder()}/a [b]#", "X")
    for name in "ab":
        storage.write_whole(folder / name, name.encode() + CONTENT)
    store.requests.clear()
    return folder


def test_any_parts_in_the_order_asked(store, folder):
    """Close ones by one request, far ones by one each, of several files at once."""
    asked = [
        Part(folder / name, begin, begin + size)
        for name, begin, size in (
            ("b", 400_000, 1000),
            ("a", 0, 10),
            ("a", 30_000, 7),
            ("b", 400_500, 2000),
            ("a", 0, 10),
            ("a", 200_000, 1),
        )
    ]
    whole = {name: name.encode() + CONTENT for name in "ab"}
    expected = [whole[part.path.name][part.begin : part.end] for part in asked]
    assert storage.read_parts(asked, "X") == expected
    assert store.requests["GET"] == 3
    assert storage.read_parts([], "X") == []


def test_groups_have_a_size(monkeypatch):
    few = [Part("x", 10 * n, 10 * n + 3) for n in range(10)]
    monkeypatch.setattr(parts, "_GROUP", 4)
    assert [len(group) for group in parts._groups(few)] == [4, 4, 2]
    monkeypatch.setattr(parts, "_GROUP_BYTES", 7)
    assert [len(group) for group in parts._groups(few)] == [2] * 5
    assert [len(group) for group in parts._groups([Part("x", 0, 100)] * 2)] == [1, 1]


def test_only_what_failed_is_asked_for_again(store, folder, quick, monkeypatch):
    monkeypatch.setattr(parts, "_GAP", 0)
    store.choose = object_stores.at_random(0.3, seed=5)
    asked = [Part(folder / "a", n * 1000, n * 1000 + 500) for n in range(100)]
    whole = b"a" + CONTENT
    assert storage.read_parts(asked, "X") == [whole[part.begin : part.end] for part in asked]
    assert store.requests["GET"] < 300


def test_slow_answers_are_given_up_and_tried_again(store, folder, quick, monkeypatch):
    monkeypatch.setattr(parts, "SECONDS", 0.5)
    count = itertools.count()
    store.choose = lambda *_: 1.5 if next(count) == 0 else None
    assert storage.read_parts([Part(folder / "a", 1, 4)], "X") == [CONTENT[:3]]


def test_what_cannot_be_read_is_named(store, folder, quick):
    says = r"X leads to '.*/a \[b\]#/{}', which cannot be read \({}"
    good = Part(folder / "a", 0, 5)
    with pytest.raises(UserError, match=says.format("none", "No such file")):
        storage.read_parts([good, Part(folder / "none", 0, 5)], "X")
    end = len(CONTENT) + 1
    with pytest.raises(UserError, match=says.format("b", "")):
        storage.read_parts([good, Part(folder / "b", end - 2, end + 5)], "X")
    store.choose = lambda *_: 403
    with pytest.raises(UserError, match=says.format("a", "permission denied")):
        storage.read_parts([good], "X")
