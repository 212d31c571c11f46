"""How probable a given answer is, and what else the model expected in its places."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from switchx.inference.batches import (
    LEAST_INPUT,
    Rows,
    bucket,
    in_batches,
    padded,
    put,
    same_shapes,
    whole,
)
from switchx.inference.masks import logits_at_inputs
from switchx.model import NO_NOISE, Groupings, Model, ModelConfig, Params

_LEAST_TARGET = 8


def score_rows(
    model: Model, params: Params, encoder_rows: Rows, target_rows: Rows, batch_size: int
) -> list[float]:
    """Log-probability of each target given its input, see `score`, in the rows' order.

    Any number of rows of any length: those of like lengths are computed together, and what fills
    up a batch is left out. Under a mesh (`jax.set_mesh`) the batch size must be a multiple of
    data x expert; the rows are shared out over its devices, and every host gets all scores.

    Args:
      encoder_rows, target_rows: as many of each: token ids, none of them 0. A target without
        tokens has a score of 0. For an encoder alone a row has as many tokens as its target.

    Returns:
      Natural logarithms, summed over the target's tokens.
    """
    if len(encoder_rows) != len(target_rows):
        raise ValueError(f"{len(encoder_rows)} inputs and {len(target_rows)} targets")

    def shape_of(n: int) -> tuple[int, int]:
        if model.config.encoder_alone:
            return (bucket(len(encoder_rows[n]), LEAST_INPUT),) * 2
        return bucket(len(target_rows[n]), _LEAST_TARGET), bucket(len(encoder_rows[n]), LEAST_INPUT)

    scores = [0.0] * len(target_rows)
    for (L, M), alike in same_shapes(range(len(scores)), shape_of):
        for numbers in in_batches(alike, batch_size):
            encoder_token_BM = put(padded([encoder_rows[n] for n in numbers], batch_size, M))
            target_token_BL = put(padded([target_rows[n] for n in numbers], batch_size, L))
            score_B = whole(score(model, params, encoder_token_BM, target_token_BL))
            for number, value in zip(numbers, score_B.tolist(), strict=False):
                scores[number] = value
    return scores


def score(
    model: Model,
    params: Params,
    encoder_token_BM: np.ndarray | jax.Array,
    target_token_BL: np.ndarray | jax.Array,
) -> jax.Array:
    """Log-probability of each target, as decoding would give it token by token.

    Of an encoder alone, that of the target's tokens where the inputs have others: those masked.

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

    Of an encoder alone, what it expects at each of its inputs.

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
    if config.encoder_alone:
        return logits_at_inputs(config, params, encoder_token_BM)
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
    counts_BL = target_token_BL > 0
    if config.encoder_alone:
        counts_BL = counts_BL & (target_token_BL != encoder_token_BM)
    return jnp.sum(jnp.where(counts_BL, logp_BL, 0.0), axis=1)


def start_token_first(target_token_BL: jax.Array) -> jax.Array:
    """What the decoder reads to give the target: one place later, behind the start token, 0."""
    return jnp.pad(target_token_BL, ((0, 0), (1, 0)))[:, :-1]
