import pytest

from switchx.storage import reading, retries

from .flaky import FlakyFileSystem


@pytest.fixture
def flaky(monkeypatch):
    """The file system behind flaky://, without trouble yet; tries follow each other at once."""
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(reading, "REMOTE_SECONDS", 0.3)
    monkeypatch.setattr(reading, "LISTING_SECONDS", 0.3)
    monkeypatch.setattr(reading, "REMOTE_CHUNK", 1000)
    FlakyFileSystem.reset()
    return FlakyFileSystem
