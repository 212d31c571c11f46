"""The checkpoints of a run that trains: saved in the background, restored onto any mesh."""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from switchx import hosts, storage
from switchx.errors import RunError, UserError, first_line
from switchx.training.checkpoints.fingerprints import fingerprints, first_difference, kinds
from switchx.training.checkpoints.identity import (
    FOLDER,
    identity,
    read_identity,
    saved_steps,
    sealed,
)
from switchx.training.checkpoints.manager import open_manager
from switchx.training.checkpoints.positions import PositionRestore, PositionSave
from switchx.training.checkpoints.refusals import check_shards, compare_arrays
from switchx.training.host_rows import HostShards
from switchx.training.start import Start
from switchx.training.state import Setup, TrainState


@dataclasses.dataclass(frozen=True)
class History:
    """What else a run goes on from.

    Attributes:
      batches: drawn from the data so far, those that were skipped included.
      losses: of the last steps, the newest last.
    """

    batches: int = 0
    losses: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class Restored:
    """What a run goes on from.

    Attributes:
      positions: of the data, by shard of this host; {} is its start.
      record: what `Start` says of itself where the state is the start's; {} of a checkpoint.
    """

    state: TrainState
    positions: Mapping[int, bytes] = dataclasses.field(default_factory=dict)
    history: History = History()
    record: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def step(self) -> int:
        return int(self.state.step)


class Checkpoints:
    """The checkpoints of a run, under `model_dir`/checkpoints/<step>/.

    Each holds the parameters, the optimizer's state with the step, the data position, and the
    identity: of model and vocabulary, with fingerprints of all arrays, so that no damaged or
    exchanged file is taken for what was saved. The newest so many stay, the one of lowest
    validation loss, and what a rollback needs.
    """

    def __init__(
        self,
        model_dir: str | Path,
        setup: Setup,
        shards: HostShards,
        start: Start,
        vocabulary: str | None = None,
    ):
        """`start` is where the run begins as long as there is no checkpoint to go on from."""
        trainer = setup.run.trainer
        self._model_dir, self._setup, self._shards = model_dir, setup, shards
        self._start = start
        self._identity = identity(setup.run.model, setup.run.optimizer.name, vocabulary)
        self._base_period = trainer.checkpoint_period
        self._directory = Path(model_dir).resolve() / FOLDER
        base_period = trainer.checkpoint_period if trainer.on_bad_loss == "skip" else None
        self._manager = open_manager(self._directory, trainer.keep_checkpoints, base_period)

    def save(
        self,
        state: TrainState,
        positions: Mapping[int, bytes],
        validation_loss: float | None = None,
        history: History = History(),
    ) -> None:
        """Starts saving, on all hosts alike; the state may be donated once this returns.

        Args:
          positions: of the shards that this host reads; it saves those that it is to keep.

        Raises:
          RunError: if this or the save before it failed.
        """
        arrays, count = _items(state), self._shards.count
        described = sealed(
            {
                **self._identity,
                "arrays": fingerprints(arrays),
                "shards": count,
                "history": [history.batches, list(history.losses)],
            }
        )
        kept = {number: positions[number] for number in self._shards.kept}
        items = ocp.args.Composite(
            params=ocp.args.StandardSave(arrays["params"]),
            optimizer=ocp.args.StandardSave(arrays["optimizer"]),
            position=PositionSave(kept, count, described["seal"]),
            identity=ocp.args.JsonSave(described),
        )
        metrics = None if validation_loss is None else {"loss": validation_loss}
        try:
            self._manager.save(int(state.step), args=items, metrics=metrics, force=True)
        except Exception as error:  # of this save, or of the one before in the background
            raise self._not_saved(error) from error

    def newest_or_start(self) -> Restored:
        """The newest checkpoint that can be read, or the start if there is none.

        A damaged one is named on standard error and passed over.

        Raises:
          UserError: it is of another run than this one.
          RunError: if there are checkpoints, but none can be read.
        """
        return self._newest_of(saved_steps(self._model_dir)) or self._begin()

    def base_or_start(self) -> Restored:
        """The same of those checkpoints that an undisturbed run has too; later ones are deleted.

        What a run saved because it was stopped must not decide how far it rolls back.
        """
        steps = saved_steps(self._model_dir)
        restored = self._newest_of([step for step in steps if self._is_base(step)])
        for step in saved_steps(self._model_dir):
            if restored is None or step > restored.step:
                self._manager.delete(step)
        return restored or self._begin()

    def _begin(self) -> Restored:
        started = self._start.begin(self._setup)
        return Restored(started.state, record=started.record)

    def _is_base(self, step: int) -> bool:
        if step % self._base_period == 0:
            return True
        try:
            return not read_identity(self._model_dir, step)[0]["shards"]  # what a run starts from
        except ValueError:  # damaged: no one can go back to it
            return False

    def _newest_of(self, steps: list[int]) -> Restored | None:
        for step in reversed(steps):
            restored, reason = self._try(step)
            if restored is None:
                print(
                    f"switchx: the checkpoint of step {step} cannot be read ({reason[:200]}); "
                    "trying the one before it.",
                    file=sys.stderr,
                )
                continue
            self._put_aside([damaged for damaged in steps if damaged > step])
            return restored
        if steps:
            raise RunError(
                f"None of the {len(steps)} checkpoints in {self._directory} can be read; "
                "move them away to start afresh."
            )
        return None

    def _try(self, step: int) -> tuple[Restored | None, str]:
        """What a checkpoint holds, where every host can read its part of it; else None and why."""
        restored: Restored | None = None
        saved: Mapping[str, str] = {}
        reason = "another host cannot read its part"
        try:
            restored, saved = self._restore(step)
        except UserError:
            raise
        except Exception as error:  # a damaged file can fail in any layer below
            reason = first_line(error)
        if not hosts.all_of(restored is not None) or restored is None:
            return None, reason
        damaged = first_difference(saved, fingerprints(_items(restored.state)))
        if damaged is not None:
            return None, f"{damaged} is not what was saved"
        if restored.step != step:
            return None, f"it is of step {restored.step}"
        return restored, ""

    def _put_aside(self, steps: Sequence[int]) -> None:
        """Moves damaged checkpoints to `model_dir`/damaged/, where no later save meets them."""
        for step in steps if hosts.is_first() else ():
            aside = storage.set_aside(
                self._directory / str(step), self._directory.parent / "damaged"
            )
            print(f"switchx: the checkpoint of step {step} is now {aside}.", file=sys.stderr)
        if steps:
            hosts.barrier("past damaged checkpoints")
            self._manager.reload()

    def _restore(self, step: int) -> tuple[Restored, Mapping[str, str]]:
        """What this host reads of a checkpoint, and the fingerprints that its arrays should have.

        Raises:
          UserError: it is of another run than this one.
          Exception: it is damaged.
        """
        saved, seal = read_identity(self._model_dir, step)
        target, shards = _items(self._setup.abstract), self._shards
        compare_arrays(self._model_dir, saved["arrays"], kinds(target))
        check_shards(self._model_dir, saved, shards.count)
        read = shards.read if saved["shards"] else ()
        items = self._manager.restore(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardRestore(target["params"]),
                optimizer=ocp.args.StandardRestore(target["optimizer"]),
                position=PositionRestore(read, shards.count, seal),
            ),
        )
        state = TrainState(items.optimizer["step"], items.params, items.optimizer["state"])
        batches, losses = saved["history"]
        return Restored(state, items.position, History(batches, tuple(losses))), saved["arrays"]

    def wait(self) -> None:
        """Returns once what was saved is on disk.

        Raises:
          RunError: if saving failed in the background.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:  # the layers below raise what they like
            raise self._not_saved(error) from error

    def _not_saved(self, error: Exception) -> RunError:
        there = ", ".join(map(str, saved_steps(self._model_dir))) or "none"
        return RunError(
            f"A checkpoint could not be saved in MODEL_DIR={str(self._model_dir)!r} "
            f"({first_line(error)[:300]}); those there are of steps: {there}."
        )

    def close(self) -> None:
        """Waits for what is being saved, and lets go of the directory."""
        try:
            self._manager.close()
        except Exception as error:  # of a save in the background, when the run ended by another
            raise self._not_saved(error) from error


def _items(state: TrainState) -> dict[str, Any]:
    """A state, or its shapes, as its checkpoint holds it."""
    return {
        "params": state.params,
        "optimizer": {"step": state.step, "state": state.opt_state},
    }
