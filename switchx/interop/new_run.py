"""A run directory out of a model that another program trained."""

import contextlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from switchx import storage
from switchx.interop.source import Source
from switchx.sharding import make_mesh
from switchx.training.checkpoints import Checkpoints
from switchx.training.config import RunConfig
from switchx.training.host_rows import HostShards
from switchx.training.run_directory import write_start
from switchx.training.start import Given
from switchx.training.state import Setup


def write_run(
    run: RunConfig,
    source: Source,
    directory: Path,
    resolved: str,
    step: int,
    origin: Mapping[str, Any],
    vocabulary: str | None = None,
) -> tuple[int, bool]:
    """Writes a checkpoint of `step` with what a run writes at its start into `directory`.

    The optimizer goes on from the source's state where it has one, and starts afresh where it
    has none; the learning rate is that of `step` in either case.

    Returns:
      The number of parameters, and whether the optimizer goes on from the source's state.

    Raises:
      UserError: the source's arrays are not those of the model.
      RunError: the checkpoint cannot be written.
    """
    setup = Setup.of(run, make_mesh(run.mesh))
    start = Given(source, step, origin)
    saved = Checkpoints(directory, setup, HostShards.none(), start, vocabulary)
    with contextlib.closing(saved) as checkpoints:
        began = checkpoints.newest_or_start()
        checkpoints.save(began.state, {})
        checkpoints.wait()
    write_start(directory, setup, resolved, began.record)
    return setup.model.num_params, began.record["optimizer"] == "continued"


def bring_vocabulary(resolved: str, vocabulary: str, from_dir: str, there: Path, to: Path) -> str:
    """Copies a vocabulary that lies in another run's directory, and names the copy.

    Args:
      resolved: the new run's gin; returned with the new place in it.
      from_dir, there, to: the other run's directory, where this one is written, and where it
        will be.
    """
    if not vocabulary.startswith(f"{from_dir}/"):
        return resolved
    name = PurePosixPath(vocabulary).name  # whatever that run's gin says, it stays in this folder
    storage.write_whole(there / name, storage.read_bytes(vocabulary, "VOCABULARY"))
    return resolved.replace(repr(vocabulary), repr(str(to / name)))
