"""Learning rate as a function of the step."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from switchx.training.config import OptimizerConfig


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rates:
    """The numbers of a schedule: scalars, of this process or traced.

    Programs take them as arguments, so that one serves runs of any rate and length. What follows
    from them is computed here, in double precision, and once.

    Attributes:
      peak: float32, the learning rate.
      rise: float32, what the first step's rate lies above the peak, where it rises to that.
      warmup, fall_start, fall_steps: int32; steps of the rise, before the fall and of the fall.
      rise_share, fall_share: float32, what a step is of the rise and of the fall.
    """

    peak: Any
    rise: Any
    warmup: Any
    fall_start: Any
    fall_steps: Any
    rise_share: Any
    fall_share: Any

    @classmethod
    def of(cls, config: OptimizerConfig, train_steps: int) -> "Rates":
        rate, warmup = config.learning_rate, config.warmup_steps
        start = config.decay_start(train_steps) if config.schedule == "wsd" else warmup
        length = max(train_steps - start, 1)
        return cls(
            peak=np.float32(rate),
            rise=np.float32(rate / warmup - rate),
            warmup=np.int32(warmup),
            fall_start=np.int32(start),
            fall_steps=np.int32(length),
            rise_share=np.float32(1 / max(warmup - 1, 1)),
            fall_share=np.float32(1 / length),
        )


def make_schedule(name: str, rates: Rates) -> optax.Schedule:
    """The schedule of that name; step counts from 0, the first update's step."""
    rate_of = _SCHEDULES[name]
    return lambda step: rate_of(jnp.asarray(step, jnp.int32), rates)


def _inverse_sqrt(step: jax.Array, rates: Rates) -> jax.Array:
    """peak / sqrt(max(step, warmup)): flat, then falling, without a rise (T5, MTF)."""
    return rates.peak / jnp.sqrt(jnp.maximum(step, rates.warmup).astype(jnp.float32))


def _constant(step: jax.Array, rates: Rates) -> jax.Array:
    return _risen(step, rates, jnp.float32(1))


def _linear(step: jax.Array, rates: Rates) -> jax.Array:
    return _risen(step, rates, 1 - _fallen(step, rates) * rates.fall_share)


def _cosine(step: jax.Array, rates: Rates) -> jax.Array:
    angle = _fallen(step, rates) * (jnp.float32(np.pi) * rates.fall_share)
    return _risen(step, rates, 0.5 * (1 + jnp.cos(angle)))


def _wsd(step: jax.Array, rates: Rates) -> jax.Array:
    """Warm-up, stable, decay: the peak times 1 - sqrt(x), where x goes from 0 to 1 in the decay.

    That decay is of Hagele et al. (arXiv 2405.18392, section 3), who find it as good as a linear
    one or better at every length, and better than cosine's; MiniCPM (2404.06395), which named the
    schedule, halves the rate again and again and never comes to 0. Up to the decay nothing depends
    on where it begins and ends, not in a bit: runs of several lengths share what comes before.
    """
    share = jnp.minimum(_fallen(step, rates) * rates.fall_share, 1)
    return _risen(step, rates, 1 - jnp.sqrt(share))


def _risen(step: jax.Array, rates: Rates, factor: jax.Array) -> jax.Array:
    """A linear rise to the peak over the warm-up, and behind it the peak times the factor."""
    left = 1 - jnp.minimum(step, rates.warmup - 1).astype(jnp.float32) * rates.rise_share
    return jnp.where(step < rates.warmup, rates.rise * left + rates.peak, rates.peak * factor)


def _fallen(step: jax.Array, rates: Rates) -> jax.Array:
    """Steps of the fall that are done, float32."""
    return jnp.clip(step - rates.fall_start, 0, rates.fall_steps).astype(jnp.float32)


_SCHEDULES: dict[str, Callable[[jax.Array, Rates], jax.Array]] = {
    "inverse_sqrt": _inverse_sqrt,
    "constant": _constant,
    "linear": _linear,
    "cosine": _cosine,
    "wsd": _wsd,
}
