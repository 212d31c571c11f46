import pytest

from tests.scripts.launching import Tools


@pytest.fixture
def tools(tmp_path):
    """Stand-ins for the tools of clouds and clusters, in front of the PATH."""
    return Tools(tmp_path)
