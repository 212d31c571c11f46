import asyncio
import types

import pytest

from switchx.storage import conditional, reading, retries

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


@pytest.fixture
def quick(monkeypatch):
    """The libraries' own tries follow each other at once, too."""
    import gcsfs.retry

    async def sleep(seconds):
        await asyncio.sleep(seconds / 1000)

    monkeypatch.setattr(retries, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(gcsfs.retry, "asyncio", types.SimpleNamespace(sleep=sleep))
    delays = {"initial_delay": "1ms", "max_delay": "8ms"}
    monkeypatch.setattr(conditional, "_RETRIES", conditional._RETRIES | delays)
