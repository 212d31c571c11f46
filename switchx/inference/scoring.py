"""How probable a given answer is, and what else the model expected in its places."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from switchx.model import NO_NOISE, Groupings, Model, ModelConfig, Params


def score(
    model: Model,
    params: Params,
    encoder_token_BM: np.ndarray | jax.Array,
    target_token_BL: np.ndarray | jax.Array,
) -> jax.Array:
    """Log-probability of each target, as decoding would give it token by token.

    Tokens are routed as decoding routes them (`switchx.model.Groupings.for_answers`), not as
    evaluation does: a row's score does not depend on its neighbours.

    Args:
      encoder_token_BM, target_token_BL: int32, 0 is padding. An end of sequence counts where
        the target has one.

    Returns:
      float32 [B], natural logarithm, summed over the target's tokens.
    """
    return _score(model.config, params, *map(jnp.asarray, (encoder_token_BM, target_token_BL)))


def logits(
    model: Model,
    params: Params,
    encoder_token_BM: np.ndarray | jax.Array,
    target_token_BL: np.ndarray | jax.Array,
) -> jax.Array:
    """What the model expects at each place of a target, behind what stands before it there.

    Args:
      encoder_token_BM, target_token_BL: as of `score`.

    Returns:
      float32 [B, L, V].
    """
    return _logits(model.config, params, *map(jnp.asarray, (encoder_token_BM, target_token_BL)))


@functools.partial(jax.jit, static_argnames="config")
def _logits(
    config: ModelConfig, params: Params, encoder_token_BM: jax.Array, target_token_BL: jax.Array
) -> jax.Array:
    mask_BL = target_token_BL > 0
    groupings = Groupings.for_answers(config.switch, encoder_token_BM.shape[1], mask_BL.shape[1])
    output = Model.of(config).bind(params)(
        encoder_token_BM, start_token_first(target_token_BL), mask_BL, NO_NOISE, groupings=groupings
    )
    return output.logits_BLV


@functools.partial(jax.jit, static_argnames="config")
def _score(
    config: ModelConfig, params: Params, encoder_token_BM: jax.Array, target_token_BL: jax.Array
) -> jax.Array:
    logits_BLV = _logits(config, params, encoder_token_BM, target_token_BL)
    logp_BLV = jax.nn.log_softmax(logits_BLV)
    logp_BL = jnp.take_along_axis(logp_BLV, target_token_BL[..., None], axis=-1)[..., 0]
    return jnp.sum(jnp.where(target_token_BL > 0, logp_BL, 0.0), axis=1)


def start_token_first(target_token_BL: jax.Array) -> jax.Array:
    """What the decoder reads to give the target: one place later, behind the start token, 0."""
    return jnp.pad(target_token_BL, ((0, 0), (1, 0)))[:, :-1]
