"""Our face to safetensors files: what the library writes, what it reads of ours, and liars."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from switchx.errors import UserError
from switchx.interop.safetensors import Entry, read_header, write_file

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b.c": np.arange(4, dtype=np.float16),
    "empty": np.zeros((0, 3), np.float32),
    "scalar": np.array(7, np.float32),
    "half": np.array([1.0, 3.14159, -1e30], jnp.bfloat16),
}


def write(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    entries = [Entry(name, array.dtype, array.shape) for name, array in arrays.items()]
    write_file(path, entries, iter(arrays.values()))
    return path


def test_the_library_reads_what_we_write(tmp_path):
    found = safetensors.numpy.load_file(write(tmp_path / "x", ARRAYS))
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    assert safetensors.safe_open(tmp_path / "x", "numpy").metadata() == {"format": "pt"}


def test_we_read_what_the_library_writes_part_by_part(tmp_path):
    safetensors.numpy.save_file(ARRAYS, tmp_path / "x", metadata={"format": "pt"})
    found = read_header(tmp_path / "x")
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        read = found[name].read()
        assert (read.dtype, read.shape, found[name].shape) == (array.dtype, *2 * (array.shape,))
        np.testing.assert_array_equal(read, array)
    np.testing.assert_array_equal(found["a"].read((slice(1, 2), slice(0, 2))), [[3.0, 4.0]])
    np.testing.assert_array_equal(found["half"].read((slice(1, 3),)), ARRAYS["half"][1:3])


def test_what_is_written_must_be_what_was_announced(tmp_path):
    with pytest.raises(ValueError, match="announced"):
        write_file(tmp_path / "x", [Entry("a", np.dtype(np.float32), (3,))], iter([np.ones(2)]))


def entry(shape=(2,), offsets=(0, 8), dtype="F32") -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    ("header", "data", "said"),
    [
        (b"", b"", "invalid JSON"),
        (b"[" * 100_000, b"", "invalid JSON"),
        ({"a": 5}, b"", "invalid JSON"),
        ({"a": entry(shape=(-1,))}, b"", "invalid JSON"),
        ({"a": entry(dtype="F64", shape=(1,))}, bytes(8), "'a' is F64; accepted are F32, BF16, F1"),
        ({"a": entry(shape=(3,))}, bytes(8), "invalid shape"),
        ({"a": entry(shape=(2**62,), offsets=(0, 2**63))}, bytes(8), "damaged"),
        ({"a": entry()}, bytes(7), "not fully covered"),
        ({"a": entry()}, bytes(9), "not fully covered"),
        ({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12), "invalid offset"),
    ],
)
def test_a_header_that_lies(tmp_path, header, data, said):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (tmp_path / "x").write_bytes(len(text).to_bytes(8, "little") + text + data)
    with pytest.raises(UserError, match=said) as error:
        read_header(tmp_path / "x")
    assert str(tmp_path / "x") in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", bytes(8), b"\xff" * 8 + b"{}"])
def test_next_to_nothing(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(UserError, match="cut short"):
        read_header(tmp_path / "x")


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
    cut=st.floats(0, 1),
)
def test_any_damage_is_one_sentence_or_no_harm(tmp_path, changes, cut):
    whole = bytearray(write(tmp_path / "x", ARRAYS).read_bytes())
    (tmp_path / "x").unlink()
    for place, value in changes:
        whole[min(int(place * len(whole)), len(whole) - 1)] = value
    damaged = tmp_path / "damaged"
    damaged.write_bytes(bytes(whole[: round(len(whole) * max(cut, 0.5))]))
    try:
        tensors = read_header(damaged)
    except UserError:
        return
    for tensor in tensors.values():
        tensor.read()
