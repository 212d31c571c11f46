"""switchx: pretraining Switch Transformers end to end in JAX and Flax.

`Run` opens a run and asks its model, `configure`, `train` and `fork` make one: see docs/python.md.
Importing this is free; what is used is imported then.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # otherwise from __getattr__
    from switchx.api import Run, configure, fork, train
    from switchx.settings import Settings

__all__ = ["Run", "Settings", "configure", "fork", "train"]

__version__ = "0.2.0.dev0"


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from switchx import api

    return getattr(api, name)
