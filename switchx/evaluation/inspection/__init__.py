"""What do a model's experts do? Every token's way, what that says, and the loss without each."""

from switchx.evaluation.inspection.inspecting import Source, inspect

__all__ = ["Source", "inspect"]
