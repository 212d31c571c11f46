"""Whatever a writer does, its caller goes on and waits for it at the end alone, not for ever."""

import io
import json
import re
import threading

import pytest

from switchx.errors import UserError
from switchx.writers import Writers, check_installed, check_names, child, group, guard
from tests.writers.rows import facts, row


class Noting:
    """A writer that notes its calls, and fails or hangs in one of them."""

    def __init__(self, method="", trouble=None):
        self.calls, self._method, self._trouble = [], method, trouble

    def __getattr__(self, method):
        def call(*args):
            self.calls.append(method)
            if method == self._method:
                self._trouble()

        return call


def fail():
    raise SystemExit(3)


def run(*own, rows=3):
    said = []
    writers = Writers(own=own)
    writers.begin(0, [], said.append)
    for step in range(rows):
        writers.write(row(step))
    writers.text(3, "samples", "text")
    writers.close("finished")
    return said


@pytest.mark.parametrize("method", ["begin", "write", "text", "close"])
def test_a_failure_is_said_once_and_others_go_on(method):
    failing, other = Noting(method, fail), Noting()
    said = run(failing, other)
    assert said == ["switchx: the metric writer Noting is off, and the run goes on (SystemExit: 3)"]
    assert other.calls == ["begin", "write", "write", "write", "text", "close"]
    tidied = [method] if method == "close" else [method, "close"]
    assert failing.calls[-len(tidied) :] == tidied
    assert failing.calls.count(method) == 1


def test_one_that_hangs_is_left_behind(monkeypatch):
    monkeypatch.setattr(group, "PATIENCE", 0.2)
    released = threading.Event()
    said = run(Noting("write", released.wait))
    released.set()
    assert said == [
        "switchx: the metric writer Noting is off, and the run goes on (it did not finish in time)"
    ]


def test_one_that_falls_behind_takes_no_more_memory(monkeypatch):
    monkeypatch.setattr(guard, "MOST_WAITING", 5)
    released = threading.Event()
    hanging = Noting("begin", released.wait)
    said = run(hanging, rows=20)
    released.set()
    (line,) = said
    assert line.endswith("(it is 5 rows behind)")


def test_a_tracker_closes_where_its_trainer_is_gone():
    calls = [["begin", {}, 0, []], ["write", row(10)]]
    sent = b"".join(json.dumps(call).encode() + b"\n" for call in calls)
    for torn in (b"", b'["write", {"st'):
        tracker = Noting()
        child._work(tracker, io.BytesIO(sent + torn))
        assert tracker.calls == ["begin", "write", "close"]


def test_a_tracker_whose_process_dies_is_switched_off(tmp_path, monkeypatch):
    """Here of a package that is not there, which `check_installed` has not been asked about."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "trackio.py").write_text("raise OSError('broken\\npackage')")
    said = []
    writers = Writers(facts(tmp_path), ["trackio"])
    writers.begin(0, [], said.append)
    writers.close("finished")
    (line,) = said
    assert line == (
        "switchx: the metric writer trackio is off, and the run goes on "
        "(RuntimeError: OSError: broken)"
    )


@pytest.mark.parametrize("content", ['{"id": "../*"}', '{"id": 7}', "[" * 10**5, "\xff", "7", ""])
def test_an_id_that_is_none_is_made_anew(tmp_path, content):
    path = tmp_path / group.IDS_FILE
    path.write_bytes(content.encode("latin-1"))
    made = group._id(str(tmp_path), print)
    assert re.fullmatch("[0-9a-f]{8}", made)
    assert group._id(str(tmp_path), print) == made == json.loads(path.read_text())["id"]


def test_names():
    check_names(["tensorboard", "wandb", "mlflow", "trackio"])
    check_names(())
    with pytest.raises(UserError, match=r"names 'jsonl', which is none of tensorboard, wandb"):
        check_names(["jsonl"])
    with pytest.raises(UserError, match=r"\('wandb', 'wandb'\) names 'wandb' more than once"):
        check_names(["wandb", "wandb"])


def test_what_is_not_installed_is_refused_with_its_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check_installed(["tensorboard"])
    with pytest.raises(UserError, match=r"mlflow.*pip install 'switchx\[mlflow\]', or leave"):
        check_installed(["tensorboard", "mlflow"])
