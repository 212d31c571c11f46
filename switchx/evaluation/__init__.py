"""How good is a model at a task? Losses, and the scores of the task's own metrics.

What computes is imported when it is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from switchx.evaluation.config import ScoreConfig

if TYPE_CHECKING:  # otherwise from __getattr__
    from switchx.evaluation.ablation import ablate
    from switchx.evaluation.inspection import Source, inspect
    from switchx.evaluation.losses import Evaluator, evaluate
    from switchx.evaluation.scores import Scorer

__all__ = ["Evaluator", "ScoreConfig", "Scorer", "Source", "ablate", "evaluate", "inspect"]


def __getattr__(name: str) -> Any:
    homes = {"ablate": "ablation", "Scorer": "scores", "Evaluator": "losses", "evaluate": "losses"}
    homes |= {"Source": "inspection", "inspect": "inspection"}
    if name not in homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{homes[name]}"), name)
