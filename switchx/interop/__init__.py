"""How do weights enter and leave? transformers' folders, T5X's checkpoints."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it imports JAX, which `switchx import --help` does without
    from switchx.interop.source import Source

# Each module has open_source(path) -> Source.
SOURCES = {"hf": "switchx.interop.hf", "t5x": "switchx.interop.t5x"}


def open_source(kind: str, path: str) -> Source:
    """Opens a model of another program; `kind` is a key of SOURCES.

    Raises:
      UserError: it is not there, damaged, or not a model that switchx can represent.
    """
    return importlib.import_module(SOURCES[kind]).open_source(path)


__all__ = ["SOURCES", "open_source"]
