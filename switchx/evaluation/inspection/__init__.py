"""What do a model's experts do? Every token's way, what it says of each expert, and the loss without."""

from switchx.evaluation.inspection.inspecting import Source, inspect

__all__ = ["Source", "inspect"]
