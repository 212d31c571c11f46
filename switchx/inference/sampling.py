"""From the logits of the next token to a token."""

import jax
import jax.numpy as jnp

from switchx.inference.config import Sampling
from switchx.model import Noise


def next_token(logits_BV: jax.Array, sampling: Sampling, noise_B: Noise) -> jax.Array:
    """Draws from softmax(logits / temperature) over the tokens that `sampling` allows.

    Args:
      logits_BV: float32.
      noise_B: keys per row; a row's draw depends on its logits and key alone.

    Returns:
      int32 [B].
    """
    logits_BV = without_padding(logits_BV)
    if sampling.temperature == 0:
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    logits_BV = logits_BV / sampling.temperature
    gumbel_BV = _gumbel(noise_B, logits_BV.shape[-1])
    if sampling.top_k == 0 and sampling.top_p == 1:  # nothing to cut, so no need to sort
        return jnp.argmax(logits_BV + gumbel_BV, axis=-1).astype(jnp.int32)

    token_BC = jnp.argsort(logits_BV, axis=-1, descending=True)
    logits_BC = jnp.take_along_axis(logits_BV, token_BC, axis=-1)
    # The noise stays with its token: were it drawn by rank, a rounding error that swaps two
    # ranks would change the answer.
    gumbel_BC = jnp.take_along_axis(gumbel_BV, token_BC, axis=-1)
    drawn_BC = jnp.where(_allowed(logits_BC, sampling), logits_BC + gumbel_BC, -jnp.inf)
    rank_B1 = jnp.argmax(drawn_BC, axis=-1)[:, None]
    return jnp.take_along_axis(token_BC, rank_B1, axis=-1)[:, 0].astype(jnp.int32)


def without_padding(logits_BV: jax.Array) -> jax.Array:
    """Makes token 0 impossible: it is no target in training, so its logit means nothing."""
    return logits_BV.at[..., 0].set(-jnp.inf)


def _allowed(logits_BC: jax.Array, sampling: Sampling) -> jax.Array:
    """bool [B, C] of descending logits: the first top_k, of these the nucleus of mass top_p."""
    rank_C = jnp.arange(logits_BC.shape[-1])
    top_k = sampling.top_k or logits_BC.shape[-1]
    logits_BC = jnp.where(rank_C < top_k, logits_BC, -jnp.inf)
    probs_BC = jax.nn.softmax(logits_BC, axis=-1)
    mass_before_BC = jnp.cumsum(probs_BC, axis=-1) - probs_BC
    # Rounding may leave the mass before the last tokens just above 1.
    within_BC = (mass_before_BC < sampling.top_p) | (sampling.top_p == 1)
    return within_BC & (rank_C < top_k)


def _gumbel(noise_B: Noise, size: int) -> jax.Array:
    """float32 [B, size] of the standard Gumbel distribution: argmax(logits + it) ~ softmax."""
    uniform_BV = noise_B.uniform((size,), 0.0, 1.0)
    # A 0, one draw in 2^24, would be an infinity that wins whatever the logits.
    return -jnp.log(-jnp.log1p(-jnp.maximum(uniform_BV, 2.0**-25)))
