"""The jitted training and evaluation steps."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from switchx.model import ModelConfig, Noise, Params, RoutingStats, Segments
from switchx.sharding import batch_sharding, batch_shards, constrain
from switchx.training.config import BatchShape
from switchx.training.losses import TokenSums, token_sums
from switchx.training.schedules import make_schedule
from switchx.training.state import Setup, TrainState

Batch = dict[str, Any]


def abstract_batch(shape: BatchShape, setup: Setup) -> Batch:
    """The batch as shapes with shardings, for compiling before the first batch is there."""
    lay = batch_sharding(setup.mesh)
    B, M, L = shape.batch_size, shape.input_length, shape.target_length
    of = lambda length, dtype: jax.ShapeDtypeStruct((B, length), dtype, sharding=lay)  # noqa: E731
    batch = {
        "encoder_input_tokens": of(M, jnp.int32),
        "decoder_input_tokens": of(L, jnp.int32),
        "decoder_target_tokens": of(L, jnp.int32),
        "decoder_loss_weights": of(L, jnp.float32),
    }
    if shape.packed:
        batch["encoder_segment_ids"] = of(M, jnp.int32)
        batch["decoder_segment_ids"] = of(L, jnp.int32)
    return batch


def compile_train_step(setup: Setup) -> Callable[[TrainState, Batch], tuple[TrainState, dict]]:
    """Compiles `train_step` for the run's shapes: (state, batch) to (state, metrics), donating."""
    return lower_train_step(setup).compile()


def lower_train_step(setup: Setup) -> jax.stages.Lowered:
    """The step's program before compilation: the one that training runs, and plans measure."""
    with jax.set_mesh(setup.mesh):
        return trace_train_step(setup).lower()


def trace_train_step(setup: Setup) -> jax.stages.Traced:
    """The step before it is lowered for a platform."""

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict]:
        return train_step(setup, state, batch)

    everywhere = NamedSharding(setup.mesh, PartitionSpec())  # every host reads its metrics
    jitted = jax.jit(step, donate_argnums=0, out_shardings=(setup.shardings, everywhere))
    with jax.set_mesh(setup.mesh):
        return jitted.trace(setup.abstract, abstract_batch(setup.run.batch, setup))


def compile_eval_step(setup: Setup) -> Callable[[Params, Batch], dict]:
    """Compiles (params, batch) to summed losses and mean routing statistics."""

    def step(params: Params, batch: Batch) -> dict:
        sums, stats = _forward(setup, params, batch, noise=None)
        return {"sums": sums, "stats": stats}

    with jax.set_mesh(setup.mesh):
        batch = abstract_batch(setup.run.eval_batch, setup)
        everywhere = NamedSharding(setup.mesh, PartitionSpec())
        jitted = jax.jit(step, out_shardings=everywhere)
        return jitted.lower(setup.abstract.params, batch).compile()


def train_step(setup: Setup, state: TrainState, batch: Batch) -> tuple[TrainState, dict]:
    """One update from one global batch. Pure; randomness from the run's seed and `state.step`."""
    grads, sums, stats = gradients(setup, state, batch)
    schedule = make_schedule(setup.run.optimizer, setup.run.trainer.train_steps)
    metrics = {
        "sums": sums,
        "stats": stats,
        "gradient_norm": optax.global_norm(grads),
        "learning_rate": schedule(state.step),
    }
    return apply_gradients(setup, state, grads), metrics


def apply_gradients(setup: Setup, state: TrainState, grads: Params) -> TrainState:
    """The state after the optimizer's update."""
    updates, opt_state = setup.optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(state.step + 1, params, opt_state)


def gradients(
    setup: Setup, state: TrainState, batch: Batch
) -> tuple[Params, TokenSums, RoutingStats | None]:
    """Gradient of the batch's objective, its token sums and mean routing statistics.

    With microbatches the parts run one after the other; each is divided by the whole batch's
    weight, so their sum is the gradient of the whole.
    """
    parts = setup.run.trainer.microbatches
    total_weight = jnp.maximum(jnp.sum(batch["decoder_loss_weights"]), 1.0)
    rows = {**batch, "row": jnp.arange(setup.run.batch.batch_size, dtype=jnp.uint32)}

    def objective(params: Params, part: Batch) -> tuple[jax.Array, tuple]:
        part = dict(part)
        noise = Noise.for_rows(setup.run.trainer.seed, state.step, part.pop("row"))
        sums, stats = _forward(setup, params, part, noise)
        value = sums.objective / total_weight
        return value + routing_loss(setup.run.model, stats) / parts, (sums, stats)

    def grad(params: Params, part: Batch) -> tuple[Params, tuple]:
        grads, aux = jax.grad(objective, has_aux=True)(params, part)
        # Each gradient lies where its parameter does, so that none is whole where that is split.
        return jax.lax.with_sharding_constraint(grads, setup.shardings.params), aux

    if parts == 1:
        grads, (sums, stats) = grad(state.params, rows)
        return grads, sums, stats

    def add(carry: Any, part: Batch) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, carry, grad(state.params, part)), None

    split = jax.tree.map(lambda x: _split_rows(x, parts, setup.mesh), rows)
    zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(grad, state.params, _first(split)))
    (grads, (sums, stats)), _ = jax.lax.scan(add, zeros, split)
    return grads, sums, jax.tree.map(lambda x: x / parts, stats)


def routing_loss(config: ModelConfig, stats: RoutingStats | None) -> jax.Array | float:
    """alpha times the balance losses plus the weighted z-losses, each summed over layers."""
    if config.switch is None or stats is None:
        return 0.0
    balance = config.switch.balance_loss_weight * jnp.sum(stats.balance_loss)
    return balance + config.switch.router_z_loss_weight * jnp.sum(stats.z_loss)


def _forward(
    setup: Setup, params: Params, batch: Batch, noise: Noise | None
) -> tuple[TokenSums, RoutingStats | None]:
    trainer, segments = setup.run.trainer, None
    if "encoder_segment_ids" in batch:
        segments = Segments(batch["encoder_segment_ids"], batch["decoder_segment_ids"])
    output = setup.model.bind(params)(
        batch["encoder_input_tokens"],
        batch["decoder_input_tokens"],
        batch["decoder_target_tokens"] > 0,
        noise,
        segments,
    )
    smoothing = trainer.label_smoothing if noise is not None else 0.0
    sums = token_sums(
        output.logits_BLV,
        batch["decoder_target_tokens"],
        batch["decoder_loss_weights"],
        smoothing,
        trainer.z_loss,
    )
    return sums, output.stats_N


def _split_rows(x: jax.Array, parts: int, mesh: jax.sharding.Mesh) -> jax.Array:
    """[B, ...] to [parts, B/parts, ...]: each part takes an equal slice of every device's rows,

    so that no row moves to another device.
    """
    split = x.reshape(batch_shards(mesh), parts, -1, *x.shape[1:]).swapaxes(0, 1)
    split = split.reshape(parts, -1, *x.shape[1:])
    return constrain(split, None, "batch", *(None,) * (x.ndim - 1))


def _first(split: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), split)


def scalars(config: ModelConfig, metrics: dict) -> dict[str, float]:
    """The numbers of a step or an evaluation as a person reads them, from device to host."""
    metrics = jax.device_get(metrics)
    sums, stats = metrics["sums"], metrics["stats"]
    weight = max(float(sums.weight), 1.0)
    loss = float(sums.cross_entropy) / weight
    values = {
        "loss": loss,
        "negative_log_perplexity": -loss,
        "accuracy": float(sums.correct) / weight,
        "objective": float(sums.objective) / weight + float(routing_loss(config, stats)),
        "z_loss": float(sums.z_loss) / weight,
    }
    values |= {k: float(metrics[k]) for k in ("learning_rate", "gradient_norm") if k in metrics}
    if stats is not None:
        values |= {
            "mean_balance_loss": float(stats.balance_loss.mean()),
            "mean_router_z_loss": float(stats.z_loss.mean()),
            "mean_dropped_fraction": float(stats.dropped_fraction.mean()),
            "mean_router_entropy": float(stats.entropy.mean()),
        }
    return values


def layer_arrays(metrics: dict) -> dict[str, Any]:
    """Per switch layer: arrays [layers] and the load per expert, [layers, E]."""
    stats = jax.device_get(metrics["stats"])
    if stats is None:
        return {}
    return {
        "balance_loss": stats.balance_loss,
        "router_z_loss": stats.z_loss,
        "dropped_fraction": stats.dropped_fraction,
        "router_entropy": stats.entropy,
        "gate_mean": stats.gate_mean,
        "load": stats.load_E,
    }


def mean_of(results: list[dict]) -> dict:
    """Evaluation results of several batches as one: sums added, statistics averaged."""
    total = {
        "sums": jax.tree.map(lambda *x: sum(x), *(r["sums"] for r in results)),
        "stats": jax.tree.map(lambda *x: sum(x) / len(x), *(r["stats"] for r in results)),
    }
    return total
