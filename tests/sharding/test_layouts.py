"""Where everything lies, as it was when someone last looked at it and agreed."""

import json

import pytest

from tests.sharding.layouts import FOLDER, LAYOUTS, layout


@pytest.mark.parametrize("name", LAYOUTS)
def test_as_agreed(name):
    """A difference is not wrong as such: look at it, then python -m tests.sharding.layouts."""
    assert layout(name) == json.loads((FOLDER / f"{name}.json").read_text())


def test_none_is_left_over():
    assert {path.stem for path in FOLDER.glob("*.json")} == set(LAYOUTS)


@pytest.mark.parametrize("name", [name for name in LAYOUTS if "fully" in name])
def test_fully_sharded_leaves_no_matrix_whole_within_a_replica(name):
    for path, placed in layout(name)["parameters"].items():
        assert ("data" in placed and "expert" in placed) or "bias" in path, (path, placed)
