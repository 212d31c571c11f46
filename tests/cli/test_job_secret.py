"""The secret that process 0 of a job leaves in the run's directory, on a disk and in a bucket."""

import pytest

from switchx import storage
from switchx.cli.hosts import _secret
from switchx.errors import UserError
from switchx.hosts.job import Job
from switchx.hosts.secret import VARIABLE


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


def job(index):
    return Job("localhost:1234", 2, index)


@pytest.mark.parametrize("place", ["gs", "disk"])
def test_all_hosts_know_it_while_they_meet(gs, tmp_path, place):
    folder = f"{gs.folder()}/a b#1" if place == "gs" else str(tmp_path / "a b#1")
    with _secret(job(1), folder, "MODEL_DIR") as early:
        assert early() is None
        with _secret(job(0), folder, "MODEL_DIR") as made:
            assert early() == made()
            assert len(made()) == 32
        assert early() is None
    assert storage.names_in(folder, "X") == set()


def test_a_bucket_that_cannot_hold_it(gs):
    gs.choose = lambda method, path: 403 if method == "POST" else None
    says = r"cannot hold the secret .*permission denied.*: set SWITCHX_JOB_SECRET to the same"
    with pytest.raises(UserError, match=says), _secret(job(0), gs.folder(), "MODEL_DIR"):
        pass
