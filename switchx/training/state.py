"""What training carries from step to step, and where each part of it lies."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from switchx import hosts
from switchx.model import Model, Params
from switchx.sharding import state_spec
from switchx.training.config import RunConfig
from switchx.training.objectives import OBJECTIVES, Objective
from switchx.training.optimizers import make_optimizer
from switchx.training.state_layout import state_axes


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Steps done (int32 scalar), parameters, optimizer state. Randomness follows from the step.

    Also the shape of their shapes, axes and shardings.

    A step that comes out not finite leaves the parameters as they are: the state is held, so that
    steps that are on their way by then leave them too, and what went wrong can be looked into. The
    number of a held state is ~step (-1 - step), and its optimizer state of no use.
    """

    step: Any
    params: Params
    opt_state: Any

    @property
    def is_held(self) -> Any:
        """Whether its step is the one before that which was not finite, as ~step."""
        return self.step < 0


@dataclasses.dataclass(frozen=True)
class Setup:
    """A run before it has any numbers: model, objective, optimizer, mesh, the state's layout.

    Attributes:
      abstract: the state as jax.ShapeDtypeStruct with shardings.
    """

    run: RunConfig
    model: Model
    objective: Objective
    optimizer: optax.GradientTransformation
    mesh: Any
    abstract: TrainState

    @classmethod
    def of(cls, run: RunConfig, mesh: Mesh | AbstractMesh) -> "Setup":
        """Allocates nothing; an AbstractMesh is enough for the layout alone."""
        model, split = Model.of(run.model), run.mesh.fully_sharded
        optimizer = make_optimizer(run.optimizer, run.trainer.train_steps, model.axes)
        opt_state = jax.tree.map(
            lambda leaf, own: _placed(leaf, tuple(own), mesh, split),
            jax.eval_shape(optimizer.init, model.shapes),
            state_axes(optimizer, model.shapes, model.axes),
        )
        step = _placed(jax.ShapeDtypeStruct((), jnp.int32), (), mesh, split)
        abstract = TrainState(step, abstract_params(model, mesh, split), opt_state)
        objective = OBJECTIVES[run.objective](run, model)
        return cls(run, model, objective, optimizer, mesh, abstract)

    @property
    def shardings(self) -> TrainState:
        """The state's shardings alone."""
        return jax.tree.map(lambda leaf: leaf.sharding, self.abstract)

    @functools.cached_property
    def constants(self) -> Any:
        """The objective's constant arrays, loaded once, for training and evaluation alike."""
        return self.objective.constants(self.mesh)

    def init(self) -> TrainState:
        """Fresh state from the run's seed, every shard made on the device where it belongs."""
        with jax.set_mesh(self.mesh):
            make = self.lower_init().compile()
            hosts.compiled_everywhere("initialize")
            return make(np.uint32(self.run.trainer.seed))

    def lower_init(self) -> jax.stages.Lowered:
        """The program of `init`, from a seed, before compilation."""

        def make(seed: jax.Array) -> TrainState:
            params = self.model.init(jax.random.key(seed))
            return TrainState(jnp.zeros((), jnp.int32), params, self.optimizer.init(params))

        everywhere = NamedSharding(self.mesh, PartitionSpec())
        seed = jax.ShapeDtypeStruct((), jnp.uint32, sharding=everywhere)
        with jax.set_mesh(self.mesh):
            return jax.jit(make, out_shardings=self.shardings).lower(seed)


def bytes_per_device(abstract: Any) -> int:
    """Bytes of one device's part of a tree of jax.ShapeDtypeStruct with shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(abstract)
    )


def abstract_params(model: Model, mesh: Mesh | AbstractMesh, fully_sharded: bool = False) -> Params:
    """The parameters as jax.ShapeDtypeStruct with the shardings in which they lie on `mesh`."""
    return jax.tree.map(
        lambda leaf, own: _placed(leaf, own, mesh, fully_sharded), model.shapes, model.axes
    )


def _placed(leaf: Any, axes: tuple[str | None, ...], mesh: Any, split: bool) -> Any:
    sharding = NamedSharding(mesh, state_spec(axes, split))
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
