"""The checkpoints of a run that trains: saved in the background, restored onto any mesh."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from switchx import hosts, storage
from switchx.errors import RunError, UserError, first_line
from switchx.terminal import remark
from switchx.training.checkpoints.best import Best
from switchx.training.checkpoints.failures import store_failure, why
from switchx.training.checkpoints.fingerprints import fingerprints, first_difference, kinds
from switchx.training.checkpoints.identity import (
    checkpoints_of,
    identity,
    read_identity,
    saved_steps,
    sealed,
)
from switchx.training.checkpoints.manager import open_manager
from switchx.training.checkpoints.objects import unchanging
from switchx.training.checkpoints.positions import PositionRestore, PositionSave
from switchx.training.checkpoints.refusals import compare_arrays
from switchx.training.host_rows import HostShards
from switchx.training.resets import NO_RESETS, Resets
from switchx.training.start import Start, state_at
from switchx.training.state import Setup, TrainState


@dataclasses.dataclass(frozen=True)
class History:
    """What else a run goes on from.

    Attributes:
      batches: drawn from the data so far, those that were skipped included.
      losses: of the last steps, the newest last.
      examples: in those batches, which need not all have been of one size.
    """

    batches: int = 0
    losses: tuple[float, ...] = ()
    examples: int = 0


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


@dataclasses.dataclass(frozen=True)
class _Found:
    """What a host read of a checkpoint.

    Attributes:
      arrays: as `_items` has them; without "optimizer" where its state begins anew.
      fingerprints: that all arrays of the checkpoint should have.
    """

    arrays: dict[str, Any]
    fingerprints: Mapping[str, str]
    positions: Mapping[int, bytes]
    history: History


class Checkpoints:
    """The checkpoints of a run, under `model_dir`/checkpoints/<step>/.

    Each holds the parameters, the optimizer's state with the step, the data position, and the
    identity: of model and vocabulary, with fingerprints of all arrays, so that no damaged or
    exchanged file is taken for what was saved. The newest so many stay, the best by BEST_SCORE,
    those that were asked for by their steps, and what a rollback needs.

    Attributes:
      resets: what of those saved so far is not used.
    """

    def __init__(
        self,
        model_dir: str | Path,
        setup: Setup,
        shards: HostShards,
        start: Start,
        vocabulary: str | None = None,
        resets: Resets = NO_RESETS,
    ):
        """`start` is where the run begins as long as there is no checkpoint to go on from."""
        trainer = setup.run.trainer
        self._model_dir, self._setup, self._shards = model_dir, setup, shards
        self._start, self.resets = start, resets
        optimizer = setup.run.optimizer
        self._identity = identity(
            setup.run.model,
            optimizer.name,
            vocabulary,
            frozen=optimizer.frozen,
            teacher=setup.run.teacher,
        )
        self._base_period, self._extra = trainer.checkpoint_period, trainer.checkpoint_steps
        self._directory = checkpoints_of(model_dir)
        base_period = trainer.checkpoint_period if trainer.on_bad_loss == "skip" else None
        keep, extra = trainer.keep_checkpoints, trainer.checkpoint_steps
        self._best = Best.of_run(model_dir, trainer.best_score)
        self._manager = open_manager(self._directory, keep, extra, base_period, self._best)

    def save(
        self,
        state: TrainState,
        positions: Mapping[int, bytes],
        found: Mapping[str, float] | None = None,
        history: History = History(),
    ) -> None:
        """Starts saving, on all hosts alike; the state may be donated once this returns.

        Args:
          positions: of the shards that this host reads; it saves those that it is to keep.
          found: by the evaluation of this step: the "loss", and scores by the names of BEST_SCORE.

        Raises:
          RunError: if this or the save before it failed.
        """
        arrays, count = _items(state), self._shards.count
        described = sealed(
            {
                **self._identity,
                "arrays": fingerprints(arrays),
                "shards": count,
                "history": [history.batches, list(history.losses), history.examples],
            }
        )
        kept = {number: positions[number] for number in self._shards.kept}
        items = ocp.args.Composite(
            params=ocp.args.StandardSave(arrays["params"]),
            optimizer=ocp.args.StandardSave(arrays["optimizer"]),
            position=PositionSave(kept, count, described["seal"]),
            identity=ocp.args.JsonSave(described),
        )
        self._best.measured(int(state.step), found or {})
        try:
            self._manager.save(int(state.step), args=items, force=True)
        except Exception as error:  # of this save, or of the one before in the background
            raise self._not_saved(error) from error

    def newest_or_start(self) -> Restored:
        """The newest checkpoint that can be read, or the start if there is none.

        A damaged one is named on standard error and passed over.

        Raises:
          UserError: it is of another run than this one.
          RunError: if there are checkpoints, but none can be read.
        """
        return self._newest_of(self._steps()) or self._begin()

    def base_or_start(self) -> Restored:
        """The same of those checkpoints that an undisturbed run has too; later ones are deleted.

        What a run saved because it was stopped must not decide how far it rolls back.

        Raises:
          RunError: if there are some, but none can be read.
        """
        try:
            return self._base() or self._begin()
        except UserError as error:  # the store does not answer, in the middle of a run
            raise RunError(str(error)) from error

    def _base(self) -> Restored | None:
        restored = self._newest_of([step for step in self._steps() if self._is_base(step)])
        for step in self._steps():
            if restored is None or step > restored.step:
                self._manager.delete(step)
        return restored

    def _steps(self) -> list[int]:
        """Those of the finished checkpoints, oldest first."""
        return list(self._manager.all_steps())

    def _begin(self) -> Restored:
        started = self._start.begin(self._setup)
        return Restored(started.state, record=started.record)

    def _is_base(self, step: int) -> bool:
        if step % self._base_period == 0 or step in self._extra:
            return True
        try:
            return not read_identity(self._model_dir, step)[0]["shards"]  # what a run starts from
        except ValueError:  # damaged: no one can go back to it
            return False

    def _newest_of(self, steps: list[int]) -> Restored | None:
        for step in reversed(steps):
            restored, reason = self._try(step)
            if restored is None:
                remark(
                    f"the checkpoint of step {step} cannot be read ({reason[:200]}); "
                    "trying the one before it."
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
        found: _Found | None = None
        reason = "another host cannot read its part"
        try:
            found = self._read(step)
        except UserError:
            raise
        except Exception as error:  # a damaged file can fail in any layer below
            refused = store_failure(error)
            if refused is not None:
                with storage.read_errors(self._directory / str(step), "MODEL_DIR"):
                    raise refused from error
            reason = first_line(error)
        if not hosts.all_of(found is not None) or found is None:
            return None, reason
        damaged = first_difference(found.fingerprints, fingerprints(found.arrays))
        if damaged is not None:
            return None, f"{damaged} is not what was saved"
        state = self._state(found.arrays, step)
        if int(state.step) != step:
            return None, f"it is of step {int(state.step)}"
        return Restored(state, found.positions, found.history), ""

    def _state(self, arrays: dict[str, Any], step: int) -> TrainState:
        if "optimizer" not in arrays:
            return state_at(self._setup, step, arrays["params"])
        optimizer = arrays["optimizer"]
        return TrainState(optimizer["step"], arrays["params"], optimizer["state"])

    def _put_aside(self, steps: Sequence[int]) -> None:
        """Moves damaged checkpoints to `model_dir`/damaged/, where no later save meets them."""
        for step in steps if hosts.is_first() else ():
            aside = storage.set_aside(
                self._directory / str(step), self._directory.parent / "damaged"
            )
            remark(f"the checkpoint of step {step} is now {aside}.")
        if steps:
            hosts.barrier("past damaged checkpoints")
            self._manager.reload()

    def _read(self, step: int) -> _Found:
        """What this host reads of a checkpoint.

        Raises:
          UserError: it is of another run than this one.
          Exception: it is damaged.
        """
        saved, seal = read_identity(self._model_dir, step)
        target, count = _items(self._setup.abstract), saved["shards"]
        if self.resets.covers("optimizer", step):
            del target["optimizer"]
        compare_arrays(self._model_dir, saved["arrays"], kinds(target))
        batches, losses, *examples = saved["history"]
        history, shards = History(batches, tuple(losses), *examples), self._shards.read
        if not count or self.resets.covers("data", step):  # none was read yet, or it begins anew
            history, shards = History(), ()
        # Data whose position goes on with another number of shards has the same one in all.
        saved_in = {shard: shard if count == self._shards.count else 0 for shard in shards}
        restores = {name: ocp.args.StandardRestore(arrays) for name, arrays in target.items()}
        position = PositionRestore(sorted(set(saved_in.values())), count, seal)
        with unchanging():
            wanted = ocp.args.Composite(position=position, **restores)
            items = self._manager.restore(step, args=wanted)
        positions = {shard: items.position[of] for shard, of in saved_in.items()}
        arrays = {name: items[name] for name in target}
        return _Found(arrays, saved["arrays"], positions, history)

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
            f"({why(error)[:300]}); those there are of steps: {there}."
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
