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
    from switchx import storage
    from switchx.errors import UserError
    from switchx.training.run_reader import run_around

    run = run_around(storage.as_path(path, "--input") / "config.gin", "--input")
    if run is not None:
        raise UserError(
            f"--input={path} is of a run of switchx, {str(run)!r}, which needs no import: every "
            "command takes it as it is, and START_FROM begins another run with it."
        )
    return importlib.import_module(SOURCES[kind]).open_source(path)


__all__ = ["SOURCES", "open_source"]
