"""A run's checkpoint made the start of another run, which goes on from it as its own."""

import json
from pathlib import Path
from typing import Any

from switchx import storage
from switchx.errors import RunError, UserError, first_line
from switchx.training.checkpoints.identity import (
    COMMITTED,
    checkpoints_of,
    read_identity,
    saved_steps,
)
from switchx.training.resets import NO_RESETS, Resets
from switchx.training.run_directory import locked, prepare
from switchx.training.run_reader import METRICS_FILE, START_FILE, metric_rows


def copy_checkpoint(source: str | Path, model_dir: str | Path, step: int) -> bool:
    """Copies a checkpoint, and what was measured up to it, into the directory of a new run.

    The checkpoint is the last that is copied, and is there whole or not at all: after a kill the
    run has none and begins anew, or this is called again. What the two runs' configurations have
    to agree in is the caller's to compare.

    Returns:
      False, with nothing done, where the run has a checkpoint already.

    Raises:
      UserError: there is no such checkpoint, it is not what the other run's configuration gives,
        or another process trains in `model_dir`.
      RunError: it is damaged, or its copy cannot be written.
    """
    record = {**_start_of(source, step), "forked": {"path": str(source), "step": step}}
    directory = prepare(model_dir)
    with locked(directory):
        if saved_steps(directory):
            return False
        rows = [json.dumps(row) + "\n" for row in metric_rows(source) if row["step"] <= step]
        storage.write_whole(directory / METRICS_FILE, "".join(rows))
        storage.write_whole(directory / START_FILE, json.dumps(record, indent=1) + "\n")
        there, here = (checkpoints_of(run) / str(step) for run in (source, directory))
        storage.copy_folder(there, here, COMMITTED, "MODEL_DIR")
    return True


def _start_of(source: str | Path, step: int) -> dict[str, Any]:
    """What a run wrote of its first state, if its checkpoint of a step may be another's."""
    what, steps = f"MODEL_DIR={str(source)!r}", saved_steps(source)
    if step not in steps:
        there = ", ".join(map(str, steps)) or "none"
        raise UserError(
            f"{what} holds no checkpoint of step {step} (those there are of steps: {there}): have "
            f"it saved and kept with CHECKPOINT_STEPS=({step},)."
        )
    try:
        read_identity(source, step)
        record = json.loads(storage.read_text(storage.as_path(source) / START_FILE, "MODEL_DIR"))
        began = record["from"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        why = first_line(error)
        raise RunError(f"The checkpoint of step {step} in {what} is damaged ({why}).") from error
    resets = Resets.of(source)
    if began != "fresh" or resets != NO_RESETS:
        raise UserError(
            f"{what} began from {began!r} or was given RESET_DATA or RESET_OPTIMIZER, so its "
            "configuration alone does not give its checkpoints: train the run from its start."
        )
    return dict(record)
