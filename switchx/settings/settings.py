"""What a caller's request comes to."""

import dataclasses

from switchx.data.config import DataConfig
from switchx.evaluation.config import ScoreConfig
from switchx.settings.gin_values import GinConfig
from switchx.training.config import RunConfig, StartConfig
from switchx.training.teacher import ObjectiveConfig


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything a request comes to.

    Attributes:
      run: what the compiled step depends on.
      data: what it is fed.
      start: where its first state comes from.
      objective: what is minimised. `run` has the teacher once it is looked for (switchx.api): a
        trained student is read without.
      scores: whether and how its tasks are scored by their own metrics.
      model_dir: where the run's files lie.
      resolved: gin that gives these settings when read as the only gin file.
      gin: the parsed configuration they were made from.
      theirs: of T5X's files, what their settings are here and what was passed over; lines.
    """

    run: RunConfig
    data: DataConfig
    start: StartConfig
    objective: ObjectiveConfig
    scores: ScoreConfig
    model_dir: str
    resolved: str
    gin: GinConfig = dataclasses.field(compare=False, repr=False)
    theirs: tuple[str, ...] = dataclasses.field(default=(), compare=False, repr=False)
