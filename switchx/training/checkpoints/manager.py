"""Orbax's manager as a run needs it: which checkpoints stay, and how arrays are written."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

# Orbax gives up a save, or the folders it makes in the background, after a time that it takes by
# the wall clock, which may be set meanwhile.
_NEVER = 10**9


_disabled = logging.root.manager.disable
logging.disable(logging.WARNING)  # it warns of what it is asked to do
# Orbax splits an array that several devices hold among them, for each to write a part. Parts of
# less than this cost more than they save: of an array of one layer's norms, a program each.
ocp.type_handlers.register_type_handler(
    jax.Array,
    ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=2**20),
    override=True,
)
logging.disable(_disabled)


def open_manager(
    directory: Path, keep: int, read_only: bool, base_period: int | None
) -> ocp.CheckpointManager:
    """The manager of the checkpoints in a folder.

    The newest `keep` stay, the one of lowest validation loss, and with `base_period` the newest of
    a multiple of it.
    """
    best = checkpoint_managers.BestN(
        get_metric_fn=lambda metrics: metrics["loss"],
        reverse=True,
        n=1,
        keep_checkpoints_without_metrics=False,
    )
    policies = [checkpoint_managers.LatestN(keep), best]
    if base_period:
        policies.append(_NewestBase(base_period))
    return ocp.CheckpointManager(
        directory,
        options=ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
            create=not read_only,
            read_only=read_only,
            async_options=ocp.AsyncOptions(
                timeout_secs=_NEVER, create_directories_asynchronously=False
            ),
        ),
    )


@dataclasses.dataclass
class _NewestBase(checkpoint_managers.PreservationPolicy):
    """Preserves the newest checkpoint of a multiple of the period; before there is one, the first.

    However few are kept, a run that was stopped between two of them can still roll back.
    """

    period: int

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        steps = [info.step for info in checkpoints]
        base = next((step for step in reversed(steps) if step % self.period == 0), steps[0])
        return [step == base for step in steps]
