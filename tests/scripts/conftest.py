import pytest

from tests.scripts.launching import Tools


@pytest.fixture(autouse=True)
def secret(monkeypatch):
    """One for all jobs, so that what a launcher prints is the same each time."""
    monkeypatch.setenv("SWITCHX_JOB_SECRET", "known-to-this-job")


@pytest.fixture
def tools(tmp_path):
    """Stand-ins for the tools of clouds and clusters, in front of the PATH."""
    return Tools(tmp_path)
