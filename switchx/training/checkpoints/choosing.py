"""Which checkpoint of another run a setting names: to start from, or to learn from."""

import re
from pathlib import Path

from switchx import storage
from switchx.errors import UserError
from switchx.training.checkpoints.identity import saved_steps
from switchx.training.run_reader import metric_rows, run_around


def chosen_step(
    named: str, wanted: str | int, setting: str, of_checkpoint: str
) -> tuple[Path, int]:
    """The run's directory and the step that two settings name.

    Args:
      named: a run's directory, or RUN/checkpoints/STEP.
      wanted: "newest", "best" by validation loss, or a step.
      setting, of_checkpoint: the settings' names, as START_FROM and START_CHECKPOINT.

    Raises:
      UserError: no run is there, it has no such checkpoint, or the folder's is another.
    """
    path, step = run_and_step(storage.store_path(named, setting))
    if step is not None:
        if wanted not in ("newest", step):
            raise UserError(
                f"{of_checkpoint}={wanted!r} is another than {setting}={named!r} names: leave one "
                "of the two out."
            )
        wanted = step
    steps = saved_steps(path)
    if not steps:
        around = run_around(path, setting)
        if around is not None:
            raise UserError(f"{setting}={named!r} is no run's directory: name {str(around)!r}.")
        raise UserError(
            f"{setting}={named!r} holds no checkpoint: name the directory of a run that "
            "saved one; `switchx import` makes one of another program's model."
        )
    if wanted == "newest":
        return path, steps[-1]
    if wanted == "best":
        losses = _losses(path, steps)
        if not losses:
            raise UserError(
                f"{of_checkpoint}='best': no checkpoint in {setting}={named!r} has a "
                "validation loss: name a step, or 'newest'."
            )
        return path, min(losses, key=lambda step: (losses[step], step))
    if wanted not in steps:
        raise UserError(
            f"{of_checkpoint}={wanted} is not in {setting}={named!r}: the checkpoints "
            f"there are {', '.join(map(str, steps))}."
        )
    return path, int(wanted)


def run_and_step(path: Path) -> tuple[Path, int | None]:
    """A run's directory as it is, and RUN/checkpoints/STEP taken apart."""
    if path.parent.name == "checkpoints" and re.fullmatch("[0-9]{1,18}", path.name):
        return path.parent.parent, int(path.name)
    return path, None


def _losses(path: Path, steps: list[int]) -> dict[int, float]:
    """The validation losses of saved steps, by step."""
    return {
        row["step"]: row["loss"]
        for row in metric_rows(path)
        if row["split"] == "validation" and row["step"] in steps and row["loss"] is not None
    }
