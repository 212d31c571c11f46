"""Positions from hostile archives: nothing is unpacked that `pack` would not have written."""

import io
import json
import zipfile

import numpy as np
import pytest

from switchx.data.streamed import position
from switchx.errors import UserError

IDENTITY = {"SEED": 0}


def archive(*entries, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        header = {"format": 3, "identity": IDENTITY, "block": 4, "counts": []}
        file.writestr("identity.json", json.dumps(header))
        for name, content in entries:
            file.writestr(name, content)
    return buffer.getvalue()


FILES = {"iterator.index": b"a", "iterator.data-00000-of-00001": b"bc"}
LEFT = {
    "decoder_target_tokens": np.arange(6, dtype=np.int32).reshape(2, 3),
    "decoder_loss_weights": np.ones((2, 3), np.float32),
}
POSITION = position.Position(4, [[1, 2, 3]], FILES, LEFT)


def test_what_was_packed_comes_back():
    found = position.unpack(position.pack(IDENTITY, POSITION), IDENTITY)
    assert found[:3] == POSITION[:3]
    assert found.left.keys() == LEFT.keys()
    for name, x in LEFT.items():
        assert found.left[name].dtype == x.dtype
        assert np.array_equal(found.left[name], x)


def npy(x):
    buffer = io.BytesIO()
    np.save(buffer, x)
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("state", "says"),
    [
        (archive(("iterator.index", b"\0" * 9999), compression=8), "it is compressed"),
        (archive(("iterator.index", b"a"), ("iterator.index", b"b")), "it holds a name twice"),
        (archive(("../iterator.index", b"a")), r"it holds '\.\./iterator\.index'"),
        (archive(("/etc/passwd", b"a")), "it holds '/etc/passwd'"),
        (archive(("rows.a.npy", npy(np.array([{}])))), "ValueError"),  # a pickle
        (archive(("rows.a.npy", npy(np.zeros(3)))), "ValueError"),
        (
            archive(
                ("rows.a.npy", npy(LEFT["decoder_loss_weights"]).replace(b"(2, 3)", b"(9, 3)"))
            ),
            "ValueError",
        ),
        (
            archive(("rows.a.npy", npy(np.zeros((1, 3)))), ("rows.b.npy", npy(np.zeros((2, 3))))),
            "its rows make no block",
        ),
        (b"", "BadZipFile"),
    ],
)
def test_others_are_refused(state, says):
    with pytest.raises(UserError, match=f"cannot be read .*{says}"):
        position.unpack(state, IDENTITY)


def test_more_than_the_limit_is_refused_unread(monkeypatch):
    monkeypatch.setattr(position, "_MOST_BYTES", 1000)
    with pytest.raises(UserError, match="it holds more than 1,000 bytes"):
        position.unpack(archive(("iterator.index", b"a" * 1001)), IDENTITY)


def test_no_turned_bit_raises_anything_else():
    """What a checkpoint's own hashes let through by another way is still one sentence."""
    state = position.pack(IDENTITY, POSITION)
    refused = 0
    for at in range(len(state)):
        for bit in range(8):
            broken = state[:at] + bytes([state[at] ^ 1 << bit]) + state[at + 1 :]
            try:
                position.unpack(broken, IDENTITY)
            except UserError:
                refused += 1
    assert refused > 4 * len(state)
