"""T5 attention: relative position bias, no biases, no 1/sqrt(d) (folded into the query init)."""

from switchx.model.attention.bias import RelativePositionBias, relative_position_bucket
from switchx.model.attention.layer import AttendingModule, Attention, Kept
from switchx.model.attention.visibility import Visibility

__all__ = [
    "AttendingModule",
    "Attention",
    "Kept",
    "RelativePositionBias",
    "Visibility",
    "relative_position_bucket",
]
