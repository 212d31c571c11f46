"""Every field that gin fills is described where it is declared."""

import re

import pytest

from switchx.settings.configurables import CONFIGURABLES


def described(cls: type) -> set[str]:
    """The names that stand before a colon in the "Attributes" of its docstring."""
    attributes = (cls.__doc__ or "").partition("    Attributes:\n")[2]
    names = re.findall(r"^      (\w+(?:,\s+\w+)*):", attributes, re.MULTILINE)
    return {name for group in names for name in re.split(r",\s+", group)}


@pytest.mark.parametrize("name", CONFIGURABLES)
def test_every_field_is_described_and_nothing_else(name):
    cls = CONFIGURABLES[name]
    assert described(cls) == set(cls.__dataclass_fields__)
