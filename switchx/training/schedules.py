"""Learning rate as a function of the step."""

import jax
import jax.numpy as jnp
import optax

from switchx.training.config import OptimizerConfig


def make_schedule(config: OptimizerConfig, train_steps: int) -> optax.Schedule:
    """The schedule of that name; step counts from 0, the first update's step."""
    rate, warmup = config.learning_rate, config.warmup_steps
    if config.schedule == "inverse_sqrt":
        return lambda step: _inverse_sqrt(step, rate, warmup)
    falling = max(train_steps - warmup, 1)
    after = {
        "constant": optax.constant_schedule(rate),
        "linear": optax.linear_schedule(rate, 0.0, falling),
        "cosine": optax.cosine_decay_schedule(rate, falling),
    }[config.schedule]
    rise = optax.linear_schedule(rate / warmup, rate, warmup - 1)
    return optax.join_schedules([rise, after], [warmup])


def _inverse_sqrt(step: jax.typing.ArrayLike, rate: float, warmup: int) -> jax.Array:
    """rate / sqrt(max(step, warmup)): flat, then falling, without a rise (T5, MTF)."""
    return rate / jnp.sqrt(jnp.maximum(jnp.asarray(step, jnp.float32), warmup))
