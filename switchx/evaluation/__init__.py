"""How good is a model at a task? Losses and blanks today; the task's own metrics next."""

from switchx.evaluation.losses import Evaluator, evaluate

__all__ = ["Evaluator", "evaluate"]
