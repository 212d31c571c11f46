"""Greedy decoding and sampling, token by token with a key-value cache."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from switchx.inference.config import GREEDY, Sampling
from switchx.inference.sampling import next_token
from switchx.model import DecodeState, Model, ModelConfig, Noise, Params

EOS_ID = 1


def greedy(
    model: Model,
    params: Params,
    encoder_token_BM: np.ndarray | jax.Array,
    length: int,
    eos_id: int = EOS_ID,
) -> jax.Array:
    """The most probable next token, `length` times or to the end of sequence.

    Args:
      encoder_token_BM: int32, 0 is padding; a row of padding alone gets an empty answer.
      length: most tokens of an answer; compiled once for each value.

    Returns:
      int32 [B, L]: the tokens, the end of sequence included, then zeros.
    """
    return sample(model, params, encoder_token_BM, length, GREEDY, eos_id=eos_id)


def sample(
    model: Model,
    params: Params,
    encoder_token_BM: np.ndarray | jax.Array,
    length: int,
    sampling: Sampling,
    seed: int = 0,
    row_B: np.ndarray | None = None,
    eos_id: int = EOS_ID,
) -> jax.Array:
    """Draws each next token as `sampling` says; everything else as for `greedy`.

    Args:
      seed: at least 0.
      row_B: the rows' numbers (default 0, 1, ...). A draw depends on seed, number and position
        only, so rows keep their numbers to keep their answers in another batch.

    Returns:
      int32 [B, L].
    """
    row_B = np.arange(len(encoder_token_BM)) if row_B is None else row_B
    return _generate(
        model.config,
        params,
        jnp.asarray(encoder_token_BM),
        Noise.for_rows(seed, jnp.uint32(0), jnp.asarray(row_B, jnp.uint32)),
        length,
        sampling,
        eos_id,
    )


class _Loop(NamedTuple):
    position: jax.Array  # int32, of the token to be found next
    last_B: jax.Array  # int32, the token before it
    ended_B: jax.Array  # bool
    token_BL: jax.Array
    state: DecodeState


@functools.partial(jax.jit, static_argnames=("config", "length", "sampling", "eos_id"))
def _generate(
    config: ModelConfig,
    params: Params,
    encoder_token_BM: jax.Array,
    noise_B: Noise,
    length: int,
    sampling: Sampling,
    eos_id: int,
) -> jax.Array:
    transformer = Model.of(config).bind(params)  # of the config: that is what can be static
    B = encoder_token_BM.shape[0]

    def step(loop: _Loop) -> _Loop:
        logits_BV, state = transformer.decode_step(loop.last_B, loop.position, loop.state)
        token_B = next_token(logits_BV, sampling, noise_B.fold(loop.position))
        token_B = jnp.where(loop.ended_B, 0, token_B)
        token_BL = jax.lax.dynamic_update_slice(loop.token_BL, token_B[:, None], (0, loop.position))
        ended_B = loop.ended_B | (token_B == eos_id)
        return _Loop(loop.position + 1, token_B, ended_B, token_BL, state)

    start = _Loop(
        position=jnp.int32(0),
        last_B=jnp.zeros(B, jnp.int32),
        ended_B=empty_rows(encoder_token_BM),
        token_BL=jnp.zeros((B, length), jnp.int32),
        state=transformer.start_decoding(encoder_token_BM, length),
    )
    going = lambda loop: (loop.position < length) & ~jnp.all(loop.ended_B)  # noqa: E731
    return jax.lax.while_loop(going, step, start).token_BL


def empty_rows(encoder_token_BM: jax.Array) -> jax.Array:
    """bool [B]: rows that only fill up a batch, and must not keep it from ending early."""
    return ~jnp.any(encoder_token_BM > 0, axis=1)
