"""One JSON array, read element by element, equals what the whole of it is to json."""

import json
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchx.data.files import json_array, lines
from switchx.data.files.json_array import ArrayError, elements_of

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=9,
)


def read(content, size=7):
    chunks = [content[at : at + size] for at in range(0, len(content), size)]
    return [value for value, _ in elements_of(chunks)]


@settings(max_examples=30, deadline=None)
@given(st.lists(VALUES, max_size=5), st.sampled_from([None, 1]), st.booleans(), st.integers(1, 40))
def test_it_is_what_json_reads(values, indent, ascii_only, size):
    content = json.dumps(values, indent=indent, ensure_ascii=ascii_only)
    content = content.encode("utf-8", "replace")
    assert read(b" \n" + content + b"\n ", size) == json.loads(content)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"[", "at element 1: it ends too early where ']' should be|element 1 is not JSON"),
        (b'[{"a": 1}, {"a"', "element 2 is not JSON"),
        (b'[{"a": 1}', r"at element 1: it ends too early where '\]' should be"),
        (b'[{"a": 1} {"a": 2}]', r"at element 1: '{.*' where '\]' should be"),
        (b'[{"a": 1},]', "element 2 is not JSON"),
        (b'[{"a": 1}]\n[{"a": 2}]', "something stands behind the end of the array"),
        (b'[{"a": "\xff"}]', "it is not UTF-8"),
        (b"[" * 100_000, "element 1 is nested too deeply"),
        (b'[{"a": "' + b"x" * 99 + b'"}]', "element 1 is longer than 50 bytes"),
    ],
)
def test_what_is_wrong_is_said(content, why, monkeypatch):
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 50 if b"xxx" in content else 10**9)
    with pytest.raises(ArrayError, match=why):
        read(content, 1000 if len(content) > 1000 else 7)


def test_a_long_element_is_not_tried_again_and_again(monkeypatch):
    tried = []
    decode = json_array._DECODER.raw_decode
    counting = SimpleNamespace(raw_decode=lambda *given: tried.append(1) or decode(*given))
    monkeypatch.setattr(json_array, "_DECODER", counting)
    assert len(read(json.dumps([{"a": "x" * 100_000}]).encode(), 10)[0]["a"]) == 100_000
    assert len(tried) < 20
