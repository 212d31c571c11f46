"""Records: what goes in comes out, and no damage passes for a record."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchx.data.prepared.records import decode, encode, salt_of, token_type

arrays = st.lists(st.lists(st.integers(0, 2**16 - 1), max_size=40), max_size=6)


@settings(deadline=None, derandomize=True)
@given(arrays, st.sampled_from(["<u2", "<u4"]))
def test_round_trip(lists, dtype):
    record = encode([np.array(x, np.int32) for x in lists], dtype, salt=7)
    found = decode(record, dtype, salt=7)
    assert [x.tolist() for x in found] == lists
    assert all(x.dtype == np.int32 for x in found)


@settings(deadline=None, derandomize=True)
@given(arrays, st.data())
def test_no_damage_passes(lists, data):
    record = encode([np.array(x, np.int32) for x in lists], "<u2", salt=7)
    bit = data.draw(st.integers(0, 8 * len(record) - 1))
    flipped = bytearray(record)
    flipped[bit // 8] ^= 1 << bit % 8
    assert decode(bytes(flipped), "<u2", salt=7) is None
    assert decode(record[: data.draw(st.integers(0, len(record) - 1))], "<u2", salt=7) is None
    assert decode(record + b"\0", "<u2", salt=7) is None


@settings(deadline=None, derandomize=True)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_read(content):
    decode(content, "<u2", salt=0)


def test_a_record_belongs_to_one_shard():
    first = [np.arange(5)]
    record = encode(first, "<u2", salt_of(first, "<u2"))
    assert decode(record, "<u2", salt_of(first, "<u2")) is not None
    assert decode(record, "<u2", salt_of([np.arange(6)], "<u2")) is None


@pytest.mark.parametrize(("size", "expected"), [(32_128, "<u2"), (65_536, "<u2"), (65_537, "<u4")])
def test_ids_fit_their_type(size, expected):
    assert token_type(size) == expected
    assert decode(encode([np.array([size - 1])], expected, 0), expected, 0)[0][0] == size - 1
