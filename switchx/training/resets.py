"""What of a run begins anew at a step it has reached, because its user asked for that.

RESET_DATA and RESET_OPTIMIZER act once, at the first start that names them, and run.json notes the
step: what the checkpoints up to it hold of the data or the optimizer is not used from then on. A
start that goes on naming them, as a launcher's does, changes nothing more.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from switchx.training.config import TrainerConfig
from switchx.training.run_reader import damaged_form, run_form

SETTINGS = {"data": "RESET_DATA", "optimizer": "RESET_OPTIMIZER"}
_NAME = "resets"  # in run.json


@dataclasses.dataclass(frozen=True)
class Resets:
    """The resets of a run.

    Attributes:
      data: the step at which the data began anew, last; -1 for never.
      optimizer: the same of the optimizer's state.
      asked: "data" and "optimizer" where the last start named their settings.
    """

    data: int = -1
    optimizer: int = -1
    asked: tuple[str, ...] = ()

    @classmethod
    def of(cls, model_dir: str | Path) -> "Resets":
        """Those that run.json notes.

        Raises:
          UserError: the file is damaged.
        """
        try:
            noted = cls(**run_form(model_dir).get(_NAME, {}))
            steps, asked = (noted.data, noted.optimizer), tuple(noted.asked)
            if not all(isinstance(step, int) for step in steps) or not {*asked} <= {*SETTINGS}:
                raise TypeError
        except TypeError:
            raise damaged_form(model_dir) from None
        return cls(*steps, asked)

    def covers(self, part: str, step: int) -> bool:
        """Whether what a checkpoint of this step holds of a part is not used."""
        return step <= int(getattr(self, part))

    def after(self, trainer: TrainerConfig, step: int, differs: Mapping[str, bool]) -> "Resets":
        """Those of a start that finds a checkpoint of this step as the newest.

        A setting that the start before named too has done its work, unless what it is for differs
        from what the checkpoint holds: then something else was asked for.

        Args:
          differs: whether the run could not go on with that part of the checkpoint.
        """
        asked = asked_for(trainer)
        due = {part for part in asked if part not in self.asked or differs[part]}
        return dataclasses.replace(self, asked=asked, **dict.fromkeys(due, step))

    def form(self) -> dict[str, Any]:
        """What run.json says of them; {} of nothing."""
        return {_NAME: dataclasses.asdict(self)} if self != NO_RESETS else {}

    def lines(self, step: int) -> list[str]:
        """What a run that goes on from this step says of them."""
        what = {"data": "the data begins anew", "optimizer": "the optimizer's state is fresh"}
        said = []
        for part, setting in SETTINGS.items():
            at = getattr(self, part)
            if self.covers(part, step):
                said.append(f"{what[part]} at step {step} ({setting})")
            elif part in self.asked and at >= 0:
                said.append(f"{setting}=True was done at step {at} and is not done again")
        return said


NO_RESETS = Resets()


def asked_for(trainer: TrainerConfig) -> tuple[str, ...]:
    """The parts that a start asks to begin anew."""
    asked = {"data": trainer.reset_data, "optimizer": trainer.reset_optimizer}
    return tuple(part for part, wanted in asked.items() if wanted)
