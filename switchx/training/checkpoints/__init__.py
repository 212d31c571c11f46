"""Checkpoints: saved in the background, restored onto any mesh, never for the wrong model."""

from switchx.training.checkpoints.checkpoints import (
    Checkpoints,
    History,
    Restored,
    restore_params,
    saved_params,
)
from switchx.training.checkpoints.identity import identity

__all__ = ["Checkpoints", "History", "Restored", "identity", "restore_params", "saved_params"]
