"""How good is a model at a task? Losses, and the scores of the task's own metrics.

What computes is imported when it is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from switchx.evaluation.config import ScoreConfig

if TYPE_CHECKING:  # otherwise from __getattr__
    from switchx.evaluation.ablation import ablate
    from switchx.evaluation.inspection import Source, inspect
    from switchx.evaluation.losses import Evaluator, evaluate, evaluate_params
    from switchx.evaluation.scores import Scorer
    from switchx.evaluation.usage import Use, usage

__all__ = [
    "Evaluator",
    "ScoreConfig",
    "Scorer",
    "Source",
    "Use",
    "ablate",
    "evaluate",
    "evaluate_params",
    "inspect",
    "usage",
]


def __getattr__(name: str) -> Any:
    homes = {"ablate": "ablation", "Scorer": "scores", "Evaluator": "losses", "evaluate": "losses"}
    homes |= {"Source": "inspection", "inspect": "inspection", "evaluate_params": "losses"}
    homes |= {"Use": "usage", "usage": "usage"}
    if name not in homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{homes[name]}"), name)
