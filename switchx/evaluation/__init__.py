"""How good is a model at a task? Losses today; answers and scores by the task's own metrics."""

from switchx.evaluation.losses import Evaluator, evaluate

__all__ = ["Evaluator", "evaluate"]
