"""What training carries from step to step, and where each part of it lies."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from switchx import hosts
from switchx.model import Model, Params, seed_key
from switchx.training.config import RunConfig
from switchx.training.freezing import trained
from switchx.training.objectives import OBJECTIVES, Objective
from switchx.training.optimizers import OPTIMIZERS, make_optimizer
from switchx.training.placing import abstract_params, placed
from switchx.training.schedules import Rates, make_schedule
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


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Numbers:
    """What differs between runs of one program, which is given it at each step.

    Attributes:
      seed: of the noise, see `switchx.model.seed_key`.
      rates: the schedule's.
    """

    seed: Any
    rates: Rates

    @classmethod
    def of(cls, run: RunConfig) -> "Numbers":
        rates = Rates.of(run.optimizer, run.trainer.train_steps)
        return cls(seed_key(run.trainer.seed), rates)


@dataclasses.dataclass(frozen=True, eq=False)
class Setup:
    """A run before it has a state: model, objective, optimizer, mesh, the state's layout.

    Attributes:
      abstract: the state as jax.ShapeDtypeStruct with shardings.
      numbers: in NumPy, or traced, as the optimizer's schedule is made of them.
    """

    run: RunConfig
    model: Model
    objective: Objective
    optimizer: optax.GradientTransformation
    mesh: Any
    abstract: TrainState
    numbers: Numbers

    @classmethod
    def of(cls, run: RunConfig, mesh: Mesh | AbstractMesh) -> "Setup":
        """Allocates nothing; an AbstractMesh is enough for the layout alone."""
        program = _program(run.program(), mesh, *_in_force(run))
        objective = OBJECTIVES[run.objective](run, program.model)
        own = dataclasses.replace(program, run=run, objective=objective)
        return own.given(Numbers.of(run))

    @property
    def program(self) -> "Setup":
        """The setup that all runs of the same compiled steps have in common.

        What is compiled of it is kept, as long as it is.
        """
        return _program(self.run.program(), self.mesh, *_in_force(self.run))

    def given(self, numbers: Numbers) -> "Setup":
        """The same run with other numbers, which may be traced."""
        schedule = make_schedule(self.run.optimizer.schedule, numbers.rates)
        optimizer = make_optimizer(self.run.optimizer, schedule, self.model.axes)
        return dataclasses.replace(self, numbers=numbers, optimizer=optimizer)

    @classmethod
    def _of_program(cls, run: RunConfig, mesh: Mesh | AbstractMesh) -> "Setup":
        model, split, numbers = Model.of(run.model), run.mesh.fully_sharded, Numbers.of(run)
        schedule = make_schedule(run.optimizer.schedule, numbers.rates)
        optimizer = make_optimizer(run.optimizer, schedule, model.axes)
        opt_state = jax.tree.map(
            lambda leaf, own: placed(leaf, tuple(own), mesh, split),
            jax.eval_shape(optimizer.init, model.shapes),
            state_axes(optimizer, model.shapes, model.axes),
        )
        step = placed(jax.ShapeDtypeStruct((), jnp.int32), (), mesh, split)
        abstract = TrainState(step, abstract_params(model, mesh, split), opt_state)
        objective = OBJECTIVES[run.objective](run, model)
        return cls(run, model, objective, optimizer, mesh, abstract, numbers)

    @property
    def shardings(self) -> TrainState:
        """The state's shardings alone."""
        return jax.tree.map(lambda leaf: leaf.sharding, self.abstract)

    def trained(self, tree: Params) -> Params:
        """Of a tree nested like the parameters, what belongs to those that are not frozen."""
        return trained(tree, self.run.optimizer.frozen)

    @functools.cached_property
    def constants(self) -> Any:
        """The objective's constant arrays, loaded once, for training and evaluation alike."""
        return self.objective.constants(self.mesh)

    def compile_init(self) -> None:
        """What `init` would do first; any thread may."""
        _compiled_init(self.program)

    def init(self) -> TrainState:
        """Fresh state from the run's seed, every shard made on the device where it belongs."""
        make = _compiled_init(self.program)
        hosts.compiled_everywhere("initialize")
        with jax.set_mesh(self.mesh):
            return make(np.uint32(self.run.trainer.seed))


# Points of a sweep that share shapes come one after the other, or in turns with a few others.
KEPT_PROGRAMS = 8


@functools.lru_cache(KEPT_PROGRAMS)
def _program(run: RunConfig, mesh: Mesh | AbstractMesh, *in_force: Any) -> Setup:
    """`in_force`: see `_in_force`."""
    return Setup._of_program(run, mesh)


# Of JAX's settings those that what is traced depends on; Python's callers may change them.
_TRACED_WITH = (
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
)


def _in_force(run: RunConfig) -> tuple[Any, ...]:
    """What names in the run stand for now, and what JAX is set to."""
    registered = OPTIMIZERS[run.optimizer.name], OBJECTIVES[run.objective]
    return *registered, *(getattr(jax.config, name) for name in _TRACED_WITH)


@functools.lru_cache(KEPT_PROGRAMS)
def _compiled_init(program: Setup) -> jax.stages.Compiled:
    """From a seed, uint32, to a fresh state."""

    def make(seed: jax.Array) -> TrainState:
        params = program.model.init(jax.random.key(seed))
        return TrainState(jnp.zeros((), jnp.int32), params, program.optimizer.init(params))

    everywhere = NamedSharding(program.mesh, PartitionSpec())
    seed = jax.ShapeDtypeStruct((), jnp.uint32, sharding=everywhere)
    with jax.set_mesh(program.mesh):
        return jax.jit(make, out_shardings=program.shardings).lower(seed).compile()
