"""How do weights enter and leave? transformers' folders, T5X's checkpoints.

Imports nothing heavy by itself: the command line asks it what there is.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from switchx.interop.source import Source

# Each is a module with open_source(path) -> Source.
SOURCES = {"hf": "switchx.interop.hf", "t5x": "switchx.interop.t5x"}


def open_source(kind: str, path: str) -> "Source":
    """Opens a model of another program; `kind` is a key of SOURCES.

    Raises:
      UserError: it is not there, damaged, or not a model that switchx can represent.
    """
    return importlib.import_module(SOURCES[kind]).open_source(path)


__all__ = ["SOURCES", "open_source"]
