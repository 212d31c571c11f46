"""Orbax's manager as a run needs it: which checkpoints stay, and how arrays are written."""

import dataclasses
import datetime
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers
from orbax.checkpoint.options import AtomicityMode, AtomicityOptions

from switchx import hosts, storage
from switchx.training.checkpoints.best import Best
from switchx.training.checkpoints.identity import is_step, is_whole, saved_steps
from switchx.training.checkpoints.objects import remove_checkpoint
from switchx.training.checkpoints.run_path import RunPath

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
    directory: Path,
    keep: int,
    extra: Sequence[int],
    base_period: int | None,
    best: Best,
) -> ocp.CheckpointManager:
    """The manager of the checkpoints in a folder, which is made where it is missing.

    What a killed process left unfinished there is removed: no other one may write to it now.

    The newest `keep` stay, the `best`, those of the steps `extra`, and with `base_period` the
    newest of a multiple of it.
    """
    policies = [checkpoint_managers.LatestN(keep), best, _OfSteps(frozenset(extra))]
    if base_period is not None:
        policies.append(_NewestBase(base_period))
    if hosts.is_first():
        _remove_unfinished(directory)
    remote = storage.is_remote(directory)
    mode = AtomicityMode.COMMIT_FILE if remote else AtomicityMode.ATOMIC_RENAME
    return ocp.CheckpointManager(
        RunPath(directory),
        options=ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
            create=True,
            step_name_format=_Steps(),
            atomicity_options=AtomicityOptions(mode),
            async_options=ocp.AsyncOptions(
                timeout_secs=_NEVER, create_directories_asynchronously=False
            ),
        ),
    )


def _remove_unfinished(directory: Path) -> None:
    storage.remove_unfinished(directory)
    for name in storage.names_in(directory, "MODEL_DIR"):
        if ".orbax-checkpoint-tmp" in name or (is_step(name) and not is_whole(directory / name)):
            remove_checkpoint(directory / name)


class _Steps(ocp.path.step.NameFormat):
    """Tells Orbax which steps there are: those of `saved_steps`."""

    def build_name(self, step: int) -> str:
        return str(step)

    def find_all(self, base_path: Any) -> Iterator[Any]:
        folder = RunPath(base_path)
        return (_Step(step, folder / str(step)) for step in saved_steps(folder.parent))

    def find_step(self, base_path: Any, step: int) -> Any:
        return _Step(step, RunPath(base_path) / str(step))  # whoever asks had it from find_all


class _Step(ocp.path.step.Metadata):
    """A step for Orbax, which would read a file of each for a time that no policy of ours asks."""

    @property
    def commit_timestamp(self) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(0, datetime.UTC)


@dataclasses.dataclass
class _OfSteps(checkpoint_managers.PreservationPolicy):
    """Preserves the checkpoints of these steps."""

    steps: frozenset[int]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        return [info.step in self.steps for info in checkpoints]


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
