"""How does a model learn? State, losses, optimizer, step, loop, checkpoints, metrics."""

from switchx.training.config import BatchShape, OptimizerConfig, RunConfig, TrainerConfig
from switchx.training.loop import TrainResult
from switchx.training.run import train

__all__ = [
    "BatchShape",
    "OptimizerConfig",
    "RunConfig",
    "TrainResult",
    "TrainerConfig",
    "train",
]
