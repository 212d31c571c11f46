"""The parameters of a run's checkpoint, for whoever does not train: inference, export, a start."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from jax.sharding import Mesh

from switchx import storage
from switchx.errors import RunError, UserError, first_line
from switchx.model import Model, ModelConfig, Params
from switchx.training.checkpoints.failures import store_failure
from switchx.training.checkpoints.fingerprints import fingerprints, first_difference, kinds
from switchx.training.checkpoints.identity import checkpoints_of, read_identity, saved_steps
from switchx.training.checkpoints.objects import unchanging
from switchx.training.checkpoints.refusals import check_model, compare_arrays, compare_optimizer
from switchx.training.checkpoints.run_path import RunPath
from switchx.training.placing import abstract_params


def restore_params(
    model: Model,
    model_dir: str | Path,
    mesh: Mesh,
    step: int | None = None,
    fully_sharded: bool = False,
) -> tuple[Params, int]:
    """Parameters of a run's checkpoint: (params on `mesh`, step).

    Args:
      step: which one; None is the newest.
      fully_sharded: whether they are split over `data` and `expert` too, as in training.

    Raises:
      UserError: if there is none, or it is of another model.
      RunError: if it is damaged.
    """
    places = abstract_params(model, mesh, fully_sharded)
    return restore_params_to(places, model.config, model_dir, step)


def restore_params_to(
    places: Params, config: ModelConfig, model_dir: str | Path, step: int | None = None
) -> tuple[Params, int]:
    """As `restore_params`, each parameter where it is wanted.

    Args:
      places: jax.ShapeDtypeStruct with shardings, nested like the model's parameters.
    """
    folder, saved, step = saved_params(config, model_dir, step)
    return _restored(folder, "params", places, saved, model_dir, step), step


def restore_opt_state(
    places: dict[str, Any], model_dir: str | Path, step: int, optimizer: str
) -> Any:
    """The optimizer's state of a run's checkpoint.

    Args:
      places: its "step" and "state", where they are wanted: jax.ShapeDtypeStruct with shardings.

    Raises:
      UserError: it is another optimizer's, or of another model.
      RunError: it is damaged.
    """
    try:
        identity, _ = read_identity(model_dir, step)
    except ValueError as error:
        raise _damaged(model_dir, step, first_line(error)) from error
    compare_optimizer(model_dir, identity, optimizer)
    folder = checkpoints_of(model_dir) / str(step) / "optimizer"
    found = _restored(folder, "optimizer", places, identity["arrays"], model_dir, step)
    return found["state"]


def _restored(
    folder: Path, item: str, target: Any, saved: dict[str, str], model_dir: str | Path, step: int
) -> Any:
    """An item of a checkpoint, laid out like `target`, and known to be what was saved."""
    compare_arrays(model_dir, saved, kinds({item: target}))
    try:
        with unchanging(), ocp.StandardCheckpointer() as checkpointer:
            found = checkpointer.restore(RunPath(folder), target)
    except Exception as error:  # a damaged file can fail in any layer below
        refused = store_failure(error)
        if refused is not None:
            with storage.read_errors(folder, "MODEL_DIR"):
                raise refused from error
        raise _damaged(model_dir, step, first_line(error)) from error
    different = first_difference(saved, fingerprints({item: found}))
    if different is not None:
        raise _damaged(model_dir, step, f"{different} is not what was saved")
    return found


def saved_params(
    config: ModelConfig, model_dir: str | Path, step: int | None = None
) -> tuple[Path, dict[str, str], int]:
    """Where the parameters of `step` or the newest lie, all fingerprints, and the step.

    Raises:
      UserError: if there is no such checkpoint, or it is of another model.
      RunError: if what vouches for its files is damaged.
    """
    check_model(config, model_dir)
    step = saved_step(model_dir, step)
    try:
        saved, _ = read_identity(model_dir, step)
    except ValueError as error:
        raise _damaged(model_dir, step, first_line(error)) from error
    folder = checkpoints_of(model_dir) / str(step) / "params"
    return folder, saved["arrays"], step


def saved_step(model_dir: str | Path, step: int | None) -> int:
    """The step that is asked for, or the newest; UserError where it is not there."""
    steps = saved_steps(model_dir)
    if step is None:
        return steps[-1]
    if step not in steps:
        raise UserError(
            f"--step={step} is not in MODEL_DIR={str(model_dir)!r}: the checkpoints there are "
            f"{_listed(steps)}."
        )
    return step


def _damaged(model_dir: str | Path, step: int, why: str) -> RunError:
    return RunError(
        f"The checkpoint of step {step} in MODEL_DIR={str(model_dir)!r} is damaged ({why[:200]}); "
        f"those there are of steps {_listed(saved_steps(model_dir))}."
    )


def _listed(steps: Sequence[Any]) -> str:
    return ", ".join(map(str, steps))
