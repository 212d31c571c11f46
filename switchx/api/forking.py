"""Runs that share their beginning: it is trained once."""

from pathlib import Path

from switchx.api.given import as_python, configured, path_str
from switchx.settings import Settings, check_fork


def fork(settings: Settings, source: str | Path, step: int) -> bool:
    """Begins a run with another run's checkpoint of a step, and what was measured up to it.

    Training it then gives what training it alone would have given, bit by bit. To be called by one
    process, before the run's first start; a kill leaves a run that begins anew.

    Args:
      source: the other run's directory, as SCHEDULE='wsd' and CHECKPOINT_STEPS made it.

    Returns:
      False, with nothing done, where the run has a checkpoint already.

    Raises:
      UserError: the runs do not agree in a setting that reaches that checkpoint, or there is none.
      RunError: it is damaged, or cannot be copied.
    """
    settings, source, step = configured(settings), path_str("source", source), as_python(step)
    check_fork(settings, source, step)

    from switchx.training.checkpoints.fork import copy_checkpoint

    return copy_checkpoint(source, settings.model_dir, step)
