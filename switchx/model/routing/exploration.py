"""What disturbs the choice of experts while training (appendix C); experts see tokens calm."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from switchx.model.noise import Noise, dropout
from switchx.model.routing.assignment import INPUT_SITE, SAMPLE_SITE, Settings


@dataclasses.dataclass(frozen=True)
class Exploration:
    """None ("argmax"): the likeliest expert. The others replace one of the two methods."""

    def disturb(self, x_GSD: jax.Array, noise: Noise) -> jax.Array:
        """What the router sees of the tokens, float32. `noise`: keys per group."""
        return x_GSD

    def scores(self, logits_GSE: jax.Array, noise: Noise) -> jax.Array:
        """What a token ranks experts by: their probability, or numbers that draw from it."""
        return jax.nn.softmax(logits_GSE, axis=-1)


@dataclasses.dataclass(frozen=True)
class Jitter(Exploration):
    """The router's input times U(1 - jitter, 1 + jitter), as the released models are trained."""

    jitter: float

    def disturb(self, x_GSD: jax.Array, noise: Noise) -> jax.Array:
        if noise.silent or not self.jitter:
            return x_GSD
        low, high = 1.0 - self.jitter, 1.0 + self.jitter
        return x_GSD * noise.fold(INPUT_SITE).uniform(x_GSD.shape[1:], low, high)


@dataclasses.dataclass(frozen=True)
class InputDropout(Exploration):
    """Dropout of the router's input."""

    rate: float

    def disturb(self, x_GSD: jax.Array, noise: Noise) -> jax.Array:
        return dropout(x_GSD, self.rate, noise.fold(INPUT_SITE))


@dataclasses.dataclass(frozen=True)
class Sample(Exploration):
    """Experts are drawn from the router's distribution, several of them without replacement."""

    def scores(self, logits_GSE: jax.Array, noise: Noise) -> jax.Array:
        if noise.silent:
            return super().scores(logits_GSE, noise)
        # The largest of logits with Gumbel noise are a draw without replacement.
        u_GSE = noise.fold(SAMPLE_SITE).uniform(logits_GSE.shape[1:], 0.0, 1.0)
        return logits_GSE - jnp.log(-jnp.log(u_GSE + 1e-20) + 1e-20)


EXPLORATIONS: dict[str, Callable[[Settings], Exploration]] = {
    "argmax": lambda settings: Exploration(),
    "sample": lambda settings: Sample(),
    "input_dropout": lambda settings: InputDropout(settings.router_dropout_rate),
    "jitter": lambda settings: Jitter(settings.jitter),
}
