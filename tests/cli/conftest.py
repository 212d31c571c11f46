"""A command line to call in tests: in this process, from an empty working folder."""

from collections.abc import Callable
from pathlib import Path

import pytest

from switchx.cli.main import main
from tests.helpers import Outcome


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Calls `switchx` with these arguments in tmp_path."""
    monkeypatch.chdir(tmp_path)

    def call(*argv: str) -> Outcome:
        capsys.readouterr()
        status = main(list(argv))
        return Outcome(status, *capsys.readouterr())

    return call


@pytest.fixture
def nothing_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run shows at its end `trained` has; the program that fills blanks is a third of it."""
    monkeypatch.setattr("switchx.reports.results.show", lambda *_: "")
