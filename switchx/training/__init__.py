"""How does a model learn? Start, objective, optimizer, step, loop, checkpoints, metrics.

What compiles and saves is imported when it is used.
"""

from typing import TYPE_CHECKING, Any

from switchx.training.config import BatchShape, OptimizerConfig, RunConfig, TrainerConfig
from switchx.training.optimizers import optimizer

if TYPE_CHECKING:  # otherwise from __getattr__
    from switchx.training.feed import Feed
    from switchx.training.loop import TrainResult
    from switchx.training.run import train

__all__ = [
    "BatchShape",
    "Feed",
    "OptimizerConfig",
    "RunConfig",
    "TrainResult",
    "TrainerConfig",
    "optimizer",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in ("Feed", "TrainResult", "train"):
        from switchx.training import run

        return getattr(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
