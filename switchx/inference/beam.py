"""Beam search with a key-value cache."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from switchx.inference.decoding import EOS_ID
from switchx.inference.sampling import without_padding
from switchx.inference.search import Answering, search
from switchx.model import Model, Params


def beam_search(
    model: Model,
    params: Params,
    encoder_token_BM: np.ndarray | jax.Array,
    length: int,
    num_beams: int,
    length_penalty: float = 0.6,
    eos_id: int = EOS_ID,
) -> tuple[jax.Array, jax.Array]:
    """The best hypotheses of a beam: sequences that end with `eos_id` or have `length` tokens.

    The score of n tokens, the end of sequence included, is their summed log-probability divided
    by ((5 + n) / 6)^alpha (Wu et al. 2016, "Google's neural machine translation system", eq. 14,
    without coverage). A hypothesis may end where it is among the `num_beams` best of its length;
    the search goes on until nothing unfinished can reach the best finished.

    transformers' generate(num_beams=P, length_penalty=0.0, early_stopping="never",
    suppress_tokens=[0]) finds the same as alpha 0 does here. Its other settings mean other
    things: it divides by n^length_penalty (default 1.0), and unless told "never" it stops at
    what it guesses to be the best.

    Args:
      encoder_token_BM: int32, 0 is padding; a row of padding alone gets empty answers.
      num_beams: unfinished hypotheses kept, and answers given; 1 is greedy decoding.
      length_penalty: alpha, at least 0. More favours longer answers.

    Returns:
      int32 [B, P, L], zeros after the end of sequence, and float32 scores [B, P], best first.
      Where fewer than P hypotheses exist, the rest are zeros with a score of -inf.
    """
    encoder_token_BM = jnp.asarray(encoder_token_BM)
    method = Beam(length, num_beams, eos_id)
    alpha_B = jnp.full(encoder_token_BM.shape[0], length_penalty, jnp.float32)
    best = _ranked(method, search(model, method, params, encoder_token_BM, alpha_B))
    return best.token_BPL, best.rank_BP


class _Beams(NamedTuple):
    """P hypotheses per row and what they are ranked by; empty places have -inf."""

    token_BPL: jax.Array
    rank_BP: jax.Array


class _Found(NamedTuple):
    alpha_B: jax.Array
    alive: _Beams  # unfinished, ranked by log-probability
    done: _Beams  # finished, ranked by score


@dataclasses.dataclass(frozen=True)
class Beam:
    """The best of P hypotheses: see Method. Of each row it needs the length penalty, float32."""

    length: int
    num_beams: int
    eos_id: int

    @property
    def hypotheses(self) -> int:
        return self.num_beams

    def begin(self, encoder_mask_BM: jax.Array, given: jax.Array) -> Answering:
        """One empty hypothesis per row; none in rows that are padding."""
        B, going_B = encoder_mask_BM.shape[0], jnp.any(encoder_mask_BM, axis=1)
        token_BPL = jnp.zeros((B, self.num_beams, self.length), jnp.int32)
        none_BP = jnp.full((B, self.num_beams), -jnp.inf)
        first_BP = none_BP.at[:, 0].set(jnp.where(going_B, 0.0, -jnp.inf))
        found = _Found(given, _Beams(token_BPL, first_BP), _Beams(token_BPL, none_BP))
        return Answering(jnp.zeros(B, jnp.int32), token_BPL[..., 0], going_B, found)

    def step(
        self, answering: Answering, logits_BPV: jax.Array
    ) -> tuple[jax.Array, jax.Array, _Found, jax.Array]:
        position_B, (alpha_B, alive, done) = answering.position_B, answering.found
        logp_BPV = without_padding(jax.nn.log_softmax(logits_BPV))
        candidates, parent_BK, token_BK = _candidates(alive, logp_BPV, position_B)

        ended_BK = token_BK == self.eos_id
        among_best_K = jnp.arange(token_BK.shape[1]) < self.num_beams
        score_BK = candidates.rank_BP / penalty(position_B + 1, alpha_B)[:, None]
        ended = candidates._replace(rank_BP=jnp.where(ended_BK & among_best_K, score_BK, -jnp.inf))
        done = _best(_both(done, ended), self.num_beams)[0]

        ongoing = candidates._replace(rank_BP=jnp.where(ended_BK, -jnp.inf, candidates.rank_BP))
        alive, chosen_BP = _best(ongoing, self.num_beams)
        last_BP = jnp.take_along_axis(token_BK, chosen_BP, axis=1)
        parent_BP = jnp.take_along_axis(parent_BK, chosen_BP, axis=1)
        # Log-probabilities only fall, so the most an unfinished one can come to is this.
        reach_B = alive.rank_BP[:, 0] / penalty(self.length, alpha_B)
        going_B = (position_B + 1 < self.length) & (reach_B > done.rank_BP[:, -1])
        return last_BP, going_B, _Found(alpha_B, alive, done), parent_BP

    def best(self, answering: Answering) -> jax.Array:
        return self.ranked(answering).token_BPL[:, 0]

    def ranked(self, answering: Answering) -> _Beams:
        """All P, the best first; what the length cut off is among them."""
        position_B, (alpha_B, alive, done) = answering.position_B, answering.found
        cut_off_BP = alive.rank_BP / penalty(self.length, alpha_B)[:, None]
        cut_off_BP = jnp.where((position_B == self.length)[:, None], cut_off_BP, -jnp.inf)
        return _best(_both(done, alive._replace(rank_BP=cut_off_BP)), self.num_beams)[0]


@functools.partial(jax.jit, static_argnames="method")
def _ranked(method: Beam, answering: Answering) -> _Beams:
    return method.ranked(answering)


def penalty(length: jax.Array | int, alpha: jax.Array) -> jax.Array:
    """((5 + length) / 6)^alpha, by which a log-probability is divided."""
    return ((5.0 + length) / 6.0) ** alpha


def _candidates(
    alive: _Beams, logp_BPV: jax.Array, position_B: jax.Array
) -> tuple[_Beams, jax.Array, jax.Array]:
    """The K best continuations by one token, the beam each came from [B, K], its token [B, K]."""
    B, P, V = logp_BPV.shape
    # At most half of 2P can be ends of sequence, so P remain to go on with. (The second half is
    # there for that alone: an end of sequence in it is not among the best.) A beam of one has
    # no use for a second best: it would go on after greedy decoding has ended.
    K = 2 * P if P > 1 else 1
    total_BT = (alive.rank_BP[..., None] + logp_BPV).reshape(B, P * V)
    logp_BK, index_BK = jax.lax.top_k(total_BT, min(K, P * V))
    parent_BK, token_BK = index_BK // V, (index_BK % V).astype(jnp.int32)
    token_BKL = jnp.take_along_axis(alive.token_BPL, parent_BK[..., None], axis=1)
    here_B1L = jnp.arange(token_BKL.shape[-1]) == position_B[:, None, None]
    token_BKL = jnp.where(here_B1L, token_BK[..., None], token_BKL)
    return _Beams(token_BKL, logp_BK), parent_BK, token_BK


def _both(a: _Beams, b: _Beams) -> _Beams:
    return _Beams(*(jnp.concatenate(pair, axis=1) for pair in zip(a, b, strict=True)))


def _best(beams: _Beams, P: int) -> tuple[_Beams, jax.Array]:
    """The P of the highest rank, earlier ones first among equals, and their places [B, P]."""
    rank_BP, place_BP = jax.lax.top_k(beams.rank_BP, P)
    return _Beams(
        jnp.take_along_axis(beams.token_BPL, place_BP[..., None], axis=1), rank_BP
    ), place_BP
