"""How good is a model at a task? Losses and blanks today; the task's own metrics next."""

from switchx.evaluation.ablation import ablate
from switchx.evaluation.losses import Evaluator, evaluate

__all__ = ["Evaluator", "ablate", "evaluate"]
