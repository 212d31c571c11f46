"""A run directory out of a model that another program trained."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from switchx.interop.source import Source
from switchx.sharding import make_mesh
from switchx.training import run_directory
from switchx.training.checkpoints import Checkpoints
from switchx.training.checkpoints.identity import identity
from switchx.training.checkpoints.positions import PositionSave
from switchx.training.config import RunConfig
from switchx.training.state import Setup, TrainState


def write_run(
    run: RunConfig, source: Source, directory: Path, resolved: str, step: int
) -> tuple[int, bool]:
    """Writes a checkpoint of `step` with its config.gin and model_info.txt into `directory`.

    The optimizer goes on from the source's state where it has one, and starts afresh where it
    has none; the learning rate is that of `step` in either case.

    Returns:
      The number of parameters, and whether the optimizer goes on from the source's state.

    Raises:
      UserError: the source's arrays are not those of the model.
      RunError: the checkpoint cannot be written.
    """
    mesh = make_mesh(run.mesh)
    setup = Setup.of(run, mesh)
    params = source.params(setup.abstract.params)
    found = source.opt_state(setup.abstract.opt_state)
    if found is None:
        with jax.set_mesh(mesh):
            init = jax.jit(setup.optimizer.init, out_shardings=setup.shardings.opt_state)
            opt_state = init(params)
    else:
        opt_state = found
    opt_state = _at_step(opt_state, step)
    checkpoints = Checkpoints(directory)
    state = TrainState(jax.device_put(jnp.int32(step), setup.shardings.step), params, opt_state)
    checkpoints.save(state, PositionSave({}, 0), identity(run.model, run.optimizer.name), None)
    checkpoints.wait()
    checkpoints.close()
    run_directory.write_config(directory, resolved)
    run_directory.write_model_info(directory, setup.model, mesh)
    return setup.model.num_params, found is not None


def _at_step(opt_state: Any, step: int) -> Any:
    """Moves the learning rate's schedule to `step`; moments keep their own counts."""

    def move(node: Any) -> Any:
        if not isinstance(node, optax.ScaleByScheduleState):
            return node
        return node._replace(count=jax.device_put(jnp.int32(step), node.count.sharding))

    return jax.tree.map(
        move, opt_state, is_leaf=lambda node: isinstance(node, optax.ScaleByScheduleState)
    )
