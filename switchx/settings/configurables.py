"""What gin may fill: the one place where names in gin files meet our dataclasses.

Model, data and training code know nothing of gin.
"""

import dataclasses

from switchx.data.config import DataConfig
from switchx.evaluation.config import ScoreConfig
from switchx.model.config import ModelConfig
from switchx.model.switch_config import SwitchConfig
from switchx.settings.sweep_config import SweepConfig
from switchx.sharding import MeshConfig
from switchx.training.config import OptimizerConfig, StartConfig, TrainerConfig
from switchx.training.teacher import ObjectiveConfig

CONFIGURABLES: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        ModelConfig,
        SwitchConfig,
        DataConfig,
        TrainerConfig,
        OptimizerConfig,
        StartConfig,
        ObjectiveConfig,
        ScoreConfig,
        MeshConfig,
        SweepConfig,
    )
}

# Built for every run. The others are built where a value refers to them, as @SwitchConfig().
ROOTS = (
    "ModelConfig",
    "DataConfig",
    "TrainerConfig",
    "OptimizerConfig",
    "StartConfig",
    "ObjectiveConfig",
    "ScoreConfig",
    "MeshConfig",
)
SWEEP = "SweepConfig"  # built for a sweep alone: no part of a run

PARAMETERS = [
    f"{name}.{field.name}"
    for name, cls in CONFIGURABLES.items()
    for field in dataclasses.fields(cls)
    if not field.metadata.get("derived")
]
