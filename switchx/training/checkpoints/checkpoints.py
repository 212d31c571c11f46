"""Checkpoints: saved in the background, restored onto any mesh, never for the wrong model."""

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from jax.sharding import Mesh

from switchx import hosts
from switchx.errors import RunError, UserError
from switchx.model import Model, ModelConfig, Params
from switchx.training.checkpoints.fingerprints import fingerprints, first_difference, kinds
from switchx.training.checkpoints.identity import FOLDER, read_identity, saved_steps, sealed
from switchx.training.checkpoints.manager import open_manager
from switchx.training.checkpoints.positions import PositionRestore, PositionSave
from switchx.training.checkpoints.refusals import check_model, check_shards, compare_arrays
from switchx.training.host_rows import HostShards
from switchx.training.state import Setup, TrainState, abstract_params


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
    """A state, this host's data positions by shard ({} if the stream had none), a history."""

    state: TrainState
    positions: dict[int, bytes]
    history: History = History()


class Checkpoints:
    """The checkpoints of a run, under `model_dir`/checkpoints/<step>/.

    Each holds the parameters, the optimizer's state with the step, the data position, and the
    identity: of model and vocabulary, with fingerprints of all arrays, so that no damaged or
    exchanged file is taken for what was saved. The newest `keep` stay, and the one of lowest
    validation loss.
    """

    def __init__(
        self,
        model_dir: str | Path,
        keep: int = 1,
        read_only: bool = False,
        base_period: int | None = None,
    ):
        """Opens the checkpoints; `base_period` is that of those that a rollback needs, if any."""
        self._model_dir, self._base_period = model_dir, base_period
        self._directory = Path(model_dir).resolve() / FOLDER
        self._manager = open_manager(self._directory, keep, read_only, base_period)

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, oldest first."""
        return saved_steps(self._model_dir)

    def save(
        self,
        state: TrainState,
        positions: PositionSave,
        identity: dict[str, Any],
        validation_loss: float | None,
        history: History = History(),
    ) -> None:
        """Starts saving, on all hosts alike; the state may be donated once this returns.

        Raises:
          RunError: if this or the save before it failed.
        """
        step = int(state.step)
        arrays = _items(state)
        described = sealed(
            {
                **identity,
                "arrays": fingerprints(arrays),
                "shards": positions.count,
                "history": [history.batches, list(history.losses)],
            }
        )
        items = ocp.args.Composite(
            params=ocp.args.StandardSave(arrays["params"]),
            optimizer=ocp.args.StandardSave(arrays["optimizer"]),
            position=dataclasses.replace(positions, seal=described["seal"]),
            identity=ocp.args.JsonSave(described),
        )
        metrics = None if validation_loss is None else {"loss": validation_loss}
        try:
            self._manager.save(step, args=items, metrics=metrics, force=True)
        except Exception as error:  # of this save, or of the one before in the background
            raise self._not_saved(error) from error

    def restore_newest(self, setup: Setup, shards: HostShards) -> Restored | None:
        """The newest checkpoint that can be read, laid out for `setup`; None if there are none.

        A damaged one is named on standard error and passed over.

        Raises:
          RunError: if there are checkpoints, but none can be read.
        """
        return self._newest_of(self.steps(), setup, shards)

    def restore_base(self, setup: Setup, shards: HostShards) -> Restored | None:
        """The same of those checkpoints that an undisturbed run has too; later ones are deleted.

        What a run saved because it was stopped must not decide how far it rolls back.
        """
        restored = self._newest_of([s for s in self.steps() if self._is_base(s)], setup, shards)
        base = int(restored.state.step) if restored else -1
        for step in [step for step in self.steps() if step > base]:
            self._manager.delete(step)
        return restored

    def _is_base(self, step: int) -> bool:
        assert self._base_period
        if step % self._base_period == 0:
            return True
        try:
            return not read_identity(self._model_dir, step)[0][
                "shards"
            ]  # an imported model, where a run starts
        except Exception:  # damaged: no one can go back to it
            return False

    def _newest_of(self, steps: list[int], setup: Setup, shards: HostShards) -> Restored | None:
        for step in reversed(steps):
            restored, reason = self._try(step, setup, shards)
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

    def _try(self, step: int, setup: Setup, shards: HostShards) -> tuple[Restored | None, str]:
        """What a checkpoint holds, where every host can read its part of it; else None and why."""
        found, reason = None, "another host cannot read its part"
        try:
            found = self._restore(step, setup, shards)
        except UserError:
            raise
        except Exception as error:  # a damaged file can fail in any layer below
            reason = _first_line(error)
        if not hosts.all_of(found is not None):
            return None, reason
        assert found is not None
        restored, saved = found
        damaged = first_difference(saved, fingerprints(_items(restored.state)))
        if damaged is not None:
            return None, f"{damaged} is not what was saved"
        if int(restored.state.step) != step:
            return None, f"it is of step {int(restored.state.step)}"
        return restored, ""

    def _put_aside(self, steps: list[int]) -> None:
        """Moves damaged checkpoints to `model_dir`/damaged/, where no later save meets them."""
        for step in steps if hosts.is_first() else ():
            aside = self._directory.parent / "damaged" / f"{step}-{time.time_ns()}"
            aside.parent.mkdir(exist_ok=True)
            (self._directory / str(step)).rename(aside)
            print(f"switchx: the checkpoint of step {step} is now {aside}.", file=sys.stderr)
        if steps:
            hosts.barrier("past damaged checkpoints")
            self._manager.reload()

    def _restore(
        self, step: int, setup: Setup, shards: HostShards
    ) -> tuple[Restored, dict[str, str]]:
        """What this host reads of a checkpoint, and the fingerprints that its arrays should have.

        Raises:
          UserError: it is of another run than this one.
          Exception: it is damaged.
        """
        saved, seal = read_identity(self._model_dir, step)
        target = _items(setup.abstract)
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

    def restore_params(self, step: int | None, target: Params) -> tuple[Params, int]:
        """The parameters alone, of `step` or the newest, laid out like `target`.

        Raises:
          UserError: if there is no such checkpoint, or it is of another model.
          RunError: if it is damaged.
        """
        step = self.choose(step)
        try:
            saved, _ = read_identity(self._model_dir, step)
            compare_arrays(self._model_dir, saved["arrays"], kinds({"params": target}))
            args = ocp.args.Composite(params=ocp.args.StandardRestore(target))
            params = self._manager.restore(step, args=args).params
        except UserError:
            raise
        except Exception as error:
            raise self._damaged(step, _first_line(error)) from error
        different = first_difference(saved["arrays"], fingerprints({"params": params}))
        if different is not None:
            raise self._damaged(step, f"{different} is not what was saved")
        return params, step

    def _damaged(self, step: int, why: str) -> RunError:
        return RunError(
            f"The checkpoint of step {step} in MODEL_DIR={str(self._model_dir)!r} is damaged "
            f"({why[:200]}); those there are of steps {', '.join(map(str, self.steps()))}."
        )

    def choose(self, step: int | None) -> int:
        """`step`, or the newest if it is None.

        Raises:
          UserError: if there is no such checkpoint.
        """
        steps = self.steps()
        if not steps:
            raise UserError(f"MODEL_DIR={str(self._model_dir)!r} holds no checkpoint.")
        step = steps[-1] if step is None else step
        if step not in steps:
            there = ", ".join(map(str, steps))
            raise UserError(f"--step={step}: the checkpoints in {self._model_dir} are {there}.")
        return step

    def saved_params(self, step: int | None) -> tuple[Path, dict[str, str], int]:
        """Where the parameters of `step` or the newest lie, all fingerprints, and the step.

        Raises:
          UserError: if there is no such checkpoint.
          RunError: if what vouches for its files is damaged.
        """
        step = self.choose(step)
        try:
            saved, _ = read_identity(self._model_dir, step)
        except Exception as error:
            raise self._damaged(step, _first_line(error)) from error
        return self._directory / str(step) / "params", saved["arrays"], step

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
        there = ", ".join(map(str, self.steps())) or "none"
        return RunError(
            f"A checkpoint could not be saved in MODEL_DIR={str(self._model_dir)!r} "
            f"({_first_line(error)[:300]}); those there are of steps: {there}."
        )

    def close(self) -> None:
        self._manager.close()


def _items(state: TrainState) -> dict[str, Any]:
    """A state, or its shapes, as its checkpoint holds it."""
    return {
        "params": state.params,
        "optimizer": {"step": state.step, "state": state.opt_state},
    }


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def restore_params(
    model: Model,
    model_dir: str | Path,
    mesh: Mesh,
    step: int | None = None,
    fully_sharded: bool = False,
) -> tuple[Params, int]:
    """Parameters of a run's checkpoint for inference: (params on `mesh`, step).

    Args:
      step: which one; None is the newest.
      fully_sharded: whether they are split over `data` too, as in training.

    Raises:
      UserError: if there is none, or it is of another model.
      RunError: if it is damaged.
    """
    checkpoints = _for_reading(model.config, model_dir)
    target = abstract_params(model, mesh, fully_sharded)
    found = checkpoints.restore_params(step, target)
    checkpoints.close()
    return found


def saved_params(
    config: ModelConfig, model_dir: str | Path, step: int | None = None
) -> tuple[Path, dict[str, str], int]:
    """Of a run, for reading them part by part: see `Checkpoints.saved_params`.

    Raises:
      UserError, RunError: as `restore_params` does.
    """
    checkpoints = _for_reading(config, model_dir)
    found = checkpoints.saved_params(step)
    checkpoints.close()
    return found


def _for_reading(config: ModelConfig, model_dir: str | Path) -> Checkpoints:
    check_model(config, model_dir)
    return Checkpoints(model_dir, read_only=True)
