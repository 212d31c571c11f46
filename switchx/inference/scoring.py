"""How probable a given answer is."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from switchx.model import Model, ModelConfig, Params


def score(
    model: Model,
    params: Params,
    encoder_token_BM: np.ndarray | jax.Array,
    target_token_BL: np.ndarray | jax.Array,
) -> jax.Array:
    """Log-probability of each target, as decoding would give it token by token.

    Like decoding, and unlike evaluation, no expert is ever full: a row's score does not depend
    on its neighbours.

    Args:
      encoder_token_BM, target_token_BL: int32, 0 is padding. An end of sequence counts where
        the target has one.

    Returns:
      float32 [B], natural logarithm, summed over the target's tokens.
    """
    encoder_token_BM, target_token_BL = map(jnp.asarray, (encoder_token_BM, target_token_BL))
    config = without_drops(model.config, encoder_token_BM.shape[1], target_token_BL.shape[1])
    return _score(config, params, encoder_token_BM, target_token_BL)


@functools.partial(jax.jit, static_argnames="config")
def _score(
    config: ModelConfig, params: Params, encoder_token_BM: jax.Array, target_token_BL: jax.Array
) -> jax.Array:
    mask_BL = target_token_BL > 0
    shifted_BL = jnp.pad(target_token_BL, ((0, 0), (1, 0)))[:, :-1]  # the start token is 0
    output = Model.of(config).bind(params)(encoder_token_BM, shifted_BL, mask_BL, None)
    logp_BLV = jax.nn.log_softmax(output.logits_BLV)
    logp_BL = jnp.take_along_axis(logp_BLV, target_token_BL[..., None], axis=-1)[..., 0]
    return jnp.sum(jnp.where(mask_BL, logp_BL, 0.0), axis=1)


def without_drops(config: ModelConfig, input_length: int, target_length: int) -> ModelConfig:
    """The same model with each sequence a group of its own, all of which fits any expert."""
    if config.switch is None:
        return config
    switch = dataclasses.replace(
        config.switch,
        encoder_group_size=input_length,
        decoder_group_size=target_length,
        min_capacity=max(input_length, target_length),
    )
    return dataclasses.replace(config, switch=switch)
