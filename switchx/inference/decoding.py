"""Greedy decoding and sampling, token by token with a key-value cache."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from switchx.inference.config import GREEDY, Sampling
from switchx.inference.sampling import next_token
from switchx.inference.search import Answering, search
from switchx.model import Model, Noise, Params, seed_key

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
    method = Drawing(length, sampling, eos_id)
    noise_B = noise_of(seed, row_B)
    return search(model, method, params, jnp.asarray(encoder_token_BM), noise_B).found.token_BL


def noise_of(seed: int, row_B: np.ndarray) -> Noise:
    """The draws of rows of these numbers."""
    return _noise_of(seed_key(seed), np.maximum(row_B, 0).astype(np.uint32))


@jax.jit
def _noise_of(key: jax.Array, row_B: jax.Array) -> Noise:
    return Noise.for_rows(key, jnp.uint32(0), row_B)


class _Found(NamedTuple):
    noise_B: Noise
    token_BL: jax.Array


@dataclasses.dataclass(frozen=True)
class Drawing:
    """Each next token drawn, or the most probable: see Method. Of each row it needs its Noise."""

    length: int
    sampling: Sampling
    eos_id: int

    hypotheses: ClassVar[int] = 1

    def begin(self, encoder_mask_BM: jax.Array, given: Noise) -> Answering:
        B = encoder_mask_BM.shape[0]
        return Answering(
            position_B=jnp.zeros(B, jnp.int32),
            last_BP=jnp.zeros((B, 1), jnp.int32),
            going_B=jnp.any(encoder_mask_BM, axis=1),
            found=_Found(given, jnp.zeros((B, self.length), jnp.int32)),
        )

    def step(
        self, answering: Answering, logits_BPV: jax.Array
    ) -> tuple[jax.Array, jax.Array, _Found, None]:
        position_B, (noise_B, token_BL) = answering.position_B, answering.found
        token_B = next_token(logits_BPV[:, 0], self.sampling, noise_B.fold(position_B))
        here_BL = jnp.arange(self.length) == position_B[:, None]
        found = _Found(noise_B, jnp.where(here_BL, token_B[:, None], token_BL))
        going_B = (token_B != self.eos_id) & (position_B + 1 < self.length)
        return token_B[:, None], going_B, found, None

    def best(self, answering: Answering) -> jax.Array:
        return answering.found.token_BL
