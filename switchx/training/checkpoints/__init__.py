"""Checkpoints: saved in the background, restored onto any mesh, never for the wrong model.

`identity` and `refusals` import neither Orbax nor a device; the rest is imported when it is used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # otherwise from __getattr__
    from switchx.training.checkpoints.checkpoints import Checkpoints, History, Restored
    from switchx.training.checkpoints.reading import restore_params, saved_params

__all__ = ["Checkpoints", "History", "Restored", "restore_params", "saved_params"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from switchx.training.checkpoints import checkpoints, reading

    return getattr(reading if name.endswith("_params") else checkpoints, name)
