"""The compiled steps of training and evaluation, whatever the objective."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from switchx.model import NO_NOISE, Noise, Params
from switchx.model.routing import Tally
from switchx.sharding import batch_shards, constrain
from switchx.training.adafactor import global_norm
from switchx.training.balance import balanced, is_over_batch, loads, with_batch_loss
from switchx.training.batches import Batch, abstract_batch
from switchx.training.freezing import merged
from switchx.training.objectives import Outcome
from switchx.training.schedules import make_schedule
from switchx.training.state import KEPT_PROGRAMS, Numbers, Setup, TrainState


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """`train_step` compiled for a run's shapes: (state, batch) to (state, metrics), donating."""

    setup: Setup
    compiled: jax.stages.Compiled

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict]:
        return self.compiled(state, self._numbers, self.setup.constants, batch)

    @functools.cached_property
    def _numbers(self) -> Numbers:
        """The run's, on every device."""
        everywhere = NamedSharding(self.setup.mesh, PartitionSpec())

        def put(x: np.ndarray) -> jax.Array:
            return jax.make_array_from_callback(x.shape, everywhere, lambda index: x[index])

        return jax.tree.map(put, jax.tree.map(np.asarray, self.setup.numbers))

    def program(self) -> str:
        """What the compiler made of it, in its own words."""
        return self.compiled.as_text() or ""


def compile_train_step(setup: Setup) -> CompiledStep:
    """Compiles the step of a run, or takes that of an earlier run of the same program."""
    return CompiledStep(setup, _compiled_train_step(setup.program))


@functools.lru_cache(KEPT_PROGRAMS)
def _compiled_train_step(program: Setup) -> jax.stages.Compiled:
    return lower_train_step(program).compile()


def lower_train_step(setup: Setup) -> jax.stages.Lowered:
    """The step's program before compilation: the one that training runs, and plans measure."""
    with jax.set_mesh(setup.mesh):
        return trace_train_step(setup).lower()


def trace_train_step(setup: Setup) -> jax.stages.Traced:
    """The step before it is lowered for a platform.

    Its arguments: state, numbers, constants, batch. Of the run it knows what `program` does.
    """
    return _traced_train_step(setup.program)


# Kept as what is compiled is: a plan counts the step, lowers it, and compares it with variants.
@functools.lru_cache(KEPT_PROGRAMS)
def _traced_train_step(program: Setup) -> jax.stages.Traced:
    # Named apart from the evaluation's, as profiles show them.
    def training_step(
        state: TrainState, numbers: Numbers, constants: Any, batch: Batch
    ) -> tuple[TrainState, dict]:
        return train_step(program.given(numbers), state, constants, batch)

    mesh = program.mesh
    everywhere = NamedSharding(mesh, PartitionSpec())  # every host reads its metrics
    jitted = jax.jit(training_step, donate_argnums=0, out_shardings=(program.shardings, everywhere))
    numbers = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), program.numbers
    )
    with jax.set_mesh(mesh):
        constants = program.objective.abstract_constants(mesh)
        batch = abstract_batch(program.run.batch, program)
        return jitted.trace(program.abstract, numbers, constants, batch)


def compile_eval_step(setup: Setup) -> Callable[[Params, Batch], dict]:
    """Compiles (params, batch) to the metrics of an evaluation, as the step; see `readings`."""
    compiled = _compiled_eval_step(setup.program)
    return lambda params, batch: compiled(params, setup.constants, batch)


@functools.lru_cache(KEPT_PROGRAMS)
def _compiled_eval_step(program: Setup) -> jax.stages.Compiled:
    def evaluation_step(params: Params, constants: Any, batch: Batch) -> dict:
        outcome = program.objective(params, constants, batch, NO_NOISE)
        return _metrics(with_batch_loss(program.run.model, outcome))

    with jax.set_mesh(program.mesh):
        constants = program.objective.abstract_constants(program.mesh)
        batch = abstract_batch(program.run.eval_batch, program)
        everywhere = NamedSharding(program.mesh, PartitionSpec())
        jitted = jax.jit(evaluation_step, out_shardings=everywhere)
        return jitted.lower(program.abstract.params, constants, batch).compile()


def train_step(
    setup: Setup, state: TrainState, constants: Any, batch: Batch
) -> tuple[TrainState, dict]:
    """One update from one global batch. Pure; randomness from the seed and `state.step`.

    Where the objective or a gradient is not finite the parameters are held: see TrainState.
    """
    grads, outcome = gradients(setup, state, constants, batch)
    schedule = make_schedule(setup.run.optimizer.schedule, setup.numbers.rates)
    with jax.named_scope("optimizer"):
        norm = global_norm(grads)
    metrics = {
        **_metrics(outcome),
        "gradient_norm": norm,
        "learning_rate": schedule(state.step),
    }
    good = jnp.isfinite(norm) & jnp.isfinite(outcome.sums["objective"]) & ~state.is_held
    updated = apply_gradients(setup, state, grads)
    run = setup.run
    params = balanced(run.model, run.optimizer.frozen, updated.params, outcome.stats)
    return _unless_held(good, dataclasses.replace(updated, params=params), state), metrics


@jax.named_scope("optimizer")
def _unless_held(good: jax.Array, updated: TrainState, state: TrainState) -> TrainState:
    """The updated state, or the old step and parameters, held.

    The choice costs nothing, since the update reads each parameter anyway. That between old and
    new optimizer states would keep both: nobody goes on from a held one's.
    """
    params = jax.tree.map(lambda new, old: jnp.where(good, new, old), updated.params, state.params)
    step = jnp.where(good, updated.step, jnp.minimum(state.step, ~state.step))
    return TrainState(step, params, updated.opt_state)


def _metrics(outcome: Outcome) -> dict:
    stats = outcome.stats and dataclasses.replace(outcome.stats, tally=None)
    return {"sums": outcome.sums, "penalty": outcome.penalty, "stats": stats}


@jax.named_scope("optimizer")
def apply_gradients(setup: Setup, state: TrainState, grads: Params) -> TrainState:
    """The state after the optimizer's update; frozen parameters are those of before."""
    updates, opt_state = setup.optimizer.update(grads, state.opt_state, state.params)
    updated = optax.apply_updates(setup.trained(state.params), updates)
    return TrainState(state.step + 1, merged(state.params, updated), opt_state)


def gradients(
    setup: Setup, state: TrainState, constants: Any, batch: Batch
) -> tuple[Params, Outcome]:
    """Gradient of the objective over a batch by what is trained, and what it made of the batch.

    With microbatches the parts run one after the other; each is divided by the whole batch's
    weight, so their sum is the gradient of the whole. A row's noise is that of its number in the
    whole batch, whichever part it is in.
    """
    trainer = setup.run.trainer
    total_weight = jnp.maximum(setup.objective.weight(batch), 1.0)
    row_B = jnp.arange(setup.run.batch.batch_size, dtype=jnp.uint32)
    trained, places = setup.trained(state.params), setup.trained(setup.shardings.params)

    def outcome_of(trained: Params, part: Batch, row_B: jax.Array) -> Outcome:
        noise = Noise.for_rows(setup.numbers.seed, state.step, row_B)
        return setup.objective(merged(state.params, trained), constants, part, noise, state.step)

    def value(
        trained: Params, part: Batch, row_B: jax.Array, whole: Tally | None
    ) -> tuple[jax.Array, Outcome]:
        outcome = outcome_of(trained, part, row_B)
        outcome = with_batch_loss(setup.run.model, outcome, whole, trainer.microbatches)
        penalty = outcome.penalty / trainer.microbatches
        return outcome.sums["objective"] / total_weight + penalty, outcome

    def grad(part: Batch, row_B: jax.Array, whole: Tally | None = None) -> tuple[Params, Outcome]:
        grads, outcome = jax.grad(value, has_aux=True)(trained, part, row_B, whole)
        # Each gradient lies where its parameter does, so that none is whole where that is split.
        return jax.lax.with_sharding_constraint(grads, places), outcome

    if trainer.microbatches == 1:
        return grad(batch, row_B)

    split = jax.tree.map(lambda x: split_rows(x, trainer.microbatches, setup.mesh), (batch, row_B))
    whole = None
    if is_over_batch(setup.run.model):  # its loads must be there before the first gradient
        whole = _added_up(lambda part, row_B: loads(outcome_of(trained, part, row_B)), split)
    grads, outcome = _added_up(lambda part, row_B: grad(part, row_B, whole), split)
    parts, stats = trainer.microbatches, outcome.stats
    stats = stats and stats.over_parts(parts)
    return grads, Outcome(outcome.sums, outcome.penalty / parts, stats)


def _added_up(of_part: Callable, split: tuple[Batch, jax.Array]) -> Any:
    """The sum over parts, one after the other."""

    def add(carry: Any, part: tuple[Batch, jax.Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, carry, of_part(*part)), None

    first = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), split)
    zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(of_part, *first))
    return jax.lax.scan(add, zeros, split)[0]


def split_rows(x: jax.Array, parts: int, mesh: jax.sharding.Mesh) -> jax.Array:
    """[B, ...] to [parts, B/parts, ...]: an equal slice of every device's rows for each part.

    So no row moves to another device.
    """
    split = x.reshape(batch_shards(mesh), parts, -1, *x.shape[1:]).swapaxes(0, 1)
    split = split.reshape(parts, -1, *x.shape[1:])
    return constrain(split, None, "batch", *(None,) * (x.ndim - 1))


def join_rows(x: jax.Array, mesh: jax.sharding.Mesh) -> jax.Array:
    """[parts, B/parts, ...] to [B, ...]: what `split_rows` took apart."""
    parts, rows = x.shape[:2]
    joined = x.reshape(parts, batch_shards(mesh), -1, *x.shape[2:]).swapaxes(0, 1)
    joined = joined.reshape(parts * rows, *x.shape[2:])
    return constrain(joined, "batch", *(None,) * (joined.ndim - 1))
