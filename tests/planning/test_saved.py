"""The folder of a plan."""

from pathlib import Path

import pytest

from switchx.errors import UserError
from switchx.planning.saved import choose_directory, save


def test_no_plan_is_overwritten_by_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = choose_directory(None, "run", "one")
    assert [path.name for path in save(first, "one", "text", {}, None)] == ["plan.json", "plan.txt"]
    assert choose_directory(None, "run", "one") == first
    assert choose_directory(str(first), "run", "one") == first
    assert choose_directory(None, "run", "two") == Path("plans/run-2")
    with pytest.raises(UserError, match="holds another plan"):
        choose_directory(str(first), "run", "two")
