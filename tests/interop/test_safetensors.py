"""Our reader and writer of safetensors against the format's own library, and against liars."""

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
}


def write(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    entries = [Entry(name, array.dtype, array.shape) for name, array in arrays.items()]
    write_file(path, entries, iter(arrays.values()))
    return path


def raw(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    path.write_bytes(size.to_bytes(8, "little") + text + data)
    return path


def test_the_library_reads_what_we_write(tmp_path):
    found = safetensors.numpy.load_file(write(tmp_path / "x", ARRAYS))
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_we_read_what_the_library_writes(tmp_path):
    safetensors.numpy.save_file(ARRAYS, tmp_path / "x", metadata={"format": "pt"})
    found = read_header(tmp_path / "x")
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        if array.size:
            np.testing.assert_array_equal(found[name].read(), array)
    np.testing.assert_array_equal(found["a"].read((slice(1, 2), slice(0, 2))), [[3.0, 4.0]])


def test_bfloat16(tmp_path):
    values = np.array([1.0, 3.14159, -1e30], jnp.bfloat16)
    path = write(tmp_path / "x", {"x": values})
    np.testing.assert_array_equal(read_header(path)["x"].read(), values)


def entry(shape=(2,), offsets=(0, 8), dtype="F32") -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    ("header", "data", "said"),
    [
        (b"", b"", "not JSON"),
        (b"[1]", b"", "not a JSON object"),
        (b'{"a": 1, "a": 2}', b"", "unique names"),
        (b"[" * 100_000, b"", "not JSON"),
        ({"a": 5}, b"", "not described"),
        ({"a": entry(shape=(-1,))}, b"", "whole numbers from 0"),
        ({"a": entry(shape=(True,))}, b"", "whole numbers from 0"),
        ({"a": entry(shape=(2.0,))}, bytes(8), "whole numbers from 0"),
        ({"a": entry(offsets=(0,))}, b"", "two data_offsets"),
        ({"a": entry(dtype="F64")}, bytes(8), "accepted are F32, BF16, F16"),
        ({"a": entry(dtype=["F32"])}, bytes(8), "accepted are F32, BF16, F16"),
        ({"a": entry(shape=(3,))}, bytes(8), "takes 8 bytes"),
        ({"a": entry(shape=(2**70,), offsets=(0, 2**72))}, bytes(8), "cut short"),
        ({"a": entry(offsets=(8, 0))}, bytes(8), "takes -8 bytes"),
        ({"a": entry()}, bytes(7), "cut short"),
        ({"a": entry()}, bytes(9), "longer than its tensors"),
        ({"a": entry(), "b": entry()}, bytes(8), "'b' overlaps"),
        ({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12), "'b' overlaps"),
        ({"a": entry(), "b": entry(offsets=(12, 20))}, bytes(20), "leaves a gap"),
        ({"a": entry(offsets=(4, 12))}, bytes(12), "leaves a gap"),
    ],
)
def test_a_header_that_lies(tmp_path, header, data, said):
    with pytest.raises(UserError, match=said) as error:
        read_header(raw(tmp_path / "x", header, data))
    assert str(tmp_path / "x") in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("length", [1 << 63, 200_000_000, 3])
def test_a_length_that_lies(tmp_path, length):
    with pytest.raises(UserError, match="x "):
        read_header(raw(tmp_path / "x", {"a": entry()}, bytes(8), length))


@pytest.mark.parametrize("content", [b"", b"1234567", bytes(8)])
def test_next_to_nothing(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(UserError):
        read_header(tmp_path / "x")


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
