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
    stable = config.decay_start(train_steps) - warmup
    after = {
        "constant": optax.constant_schedule(rate),
        "linear": optax.linear_schedule(rate, 0.0, falling),
        "cosine": optax.cosine_decay_schedule(rate, falling),
        "wsd": lambda step: _wsd(step, rate, stable, falling),
    }[config.schedule]
    rise = optax.linear_schedule(rate / warmup, rate, warmup - 1)
    return optax.join_schedules([rise, after], [warmup])


def _inverse_sqrt(step: jax.typing.ArrayLike, rate: float, warmup: int) -> jax.Array:
    """rate / sqrt(max(step, warmup)): flat, then falling, without a rise (T5, MTF)."""
    return rate / jnp.sqrt(jnp.maximum(jnp.asarray(step, jnp.float32), warmup))


def _wsd(step: jax.typing.ArrayLike, rate: float, start: int, end: int) -> jax.Array:
    """The rate up to `start`, then times 1 - sqrt(x), where x goes from 0 to 1 at `end`.

    The decay is that of Hagele et al. (arXiv 2405.18392, section 3), who find it as good as a
    linear one or better at every length, and better than cosine's; MiniCPM (2404.06395), which
    named the schedule, halves the rate again and again and never comes to 0. Up to `start` nothing
    depends on `end`, not in a bit, so that runs of several lengths share what comes before.
    """
    done = jnp.maximum(jnp.asarray(step, jnp.int32) - start, 0).astype(jnp.float32)
    return rate * (1.0 - jnp.sqrt(jnp.minimum(done / (end - start), 1.0)))
