"""Beam search with a key-value cache."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from switchx.inference.decoding import EOS_ID, empty_rows
from switchx.inference.sampling import without_padding
from switchx.model import DecodeState, Model, ModelConfig, Params


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
    alpha = jnp.float32(length_penalty)
    best = _search(model.config, params, encoder_token_BM, alpha, length, num_beams, eos_id)
    return best.token_BPL, best.rank_BP


class _Beams(NamedTuple):
    """P hypotheses per row and what they are ranked by; empty places have -inf."""

    token_BPL: jax.Array
    rank_BP: jax.Array


class _Loop(NamedTuple):
    position: jax.Array  # int32, of the token to be found next
    last_BP: jax.Array  # int32, the token before it, of each alive hypothesis
    alive: _Beams  # unfinished, ranked by log-probability
    done: _Beams  # finished, ranked by score
    state: DecodeState  # of the alive: arrays' batch is B * P


@functools.partial(jax.jit, static_argnames=("config", "length", "num_beams", "eos_id"))
def _search(
    config: ModelConfig,
    params: Params,
    encoder_token_BM: jax.Array,
    alpha: jax.Array,
    length: int,
    num_beams: int,
    eos_id: int,
) -> _Beams:
    transformer = Model.of(config).bind(params)

    def step(loop: _Loop) -> _Loop:
        logits, state = transformer.decode_step(loop.last_BP.reshape(-1), loop.position, loop.state)
        logp = without_padding(jax.nn.log_softmax(logits))
        logp_BPV = logp.reshape(*loop.last_BP.shape, -1)
        candidates, parent_BK, token_BK = _candidates(loop.alive, logp_BPV, loop.position)

        ended_BK = token_BK == eos_id
        among_best_K = jnp.arange(token_BK.shape[1]) < num_beams
        score_BK = candidates.rank_BP / penalty(loop.position + 1, alpha)
        ended = candidates._replace(rank_BP=jnp.where(ended_BK & among_best_K, score_BK, -jnp.inf))
        done = _best(_both(loop.done, ended), num_beams)[0]

        going = candidates._replace(rank_BP=jnp.where(ended_BK, -jnp.inf, candidates.rank_BP))
        alive, chosen_BP = _best(going, num_beams)
        last_BP = jnp.take_along_axis(token_BK, chosen_BP, axis=1)
        state = _reorder(state, jnp.take_along_axis(parent_BK, chosen_BP, axis=1))
        return _Loop(loop.position + 1, last_BP, alive, done, state)

    def undecided(loop: _Loop) -> jax.Array:
        # Log-probabilities only fall, so the most an unfinished one can come to is this.
        reach_B = loop.alive.rank_BP[:, 0] / penalty(length, alpha)
        return (loop.position < length) & jnp.any(reach_B > loop.done.rank_BP[:, -1])

    start = _start(
        transformer.start_decoding(encoder_token_BM, length), encoder_token_BM, num_beams
    )
    loop = jax.lax.while_loop(undecided, step, start)
    cut_off_BP = jnp.where(
        loop.position == length, loop.alive.rank_BP / penalty(length, alpha), -jnp.inf
    )
    best, _ = _best(_both(loop.done, loop.alive._replace(rank_BP=cut_off_BP)), num_beams)
    return best


def penalty(length: jax.Array | int, alpha: jax.Array | float) -> jax.Array:
    """((5 + length) / 6)^alpha, by which a log-probability is divided."""
    return ((5.0 + length) / 6.0) ** alpha


def _start(state: DecodeState, encoder_token_BM: jax.Array, P: int) -> _Loop:
    """One empty hypothesis per row, its cache P times over; none in rows that are padding."""
    B, L = encoder_token_BM.shape[0], state.bias_HLL.shape[-1]
    token_BPL = jnp.zeros((B, P, L), jnp.int32)
    none_BP = jnp.full((B, P), -jnp.inf)
    first_B = jnp.where(empty_rows(encoder_token_BM), -jnp.inf, 0.0)
    state = dataclasses.replace(
        state,
        cache_N=jax.tree.map(lambda x: jnp.repeat(x, P, axis=1), state.cache_N),
        encoder_mask_BM=jnp.repeat(state.encoder_mask_BM, P, axis=0),
    )
    alive = _Beams(token_BPL, none_BP.at[:, 0].set(first_B))
    return _Loop(jnp.int32(0), token_BPL[..., 0], alive, _Beams(token_BPL, none_BP), state)


def _candidates(
    alive: _Beams, logp_BPV: jax.Array, position: jax.Array
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
    token_BKL = jax.lax.dynamic_update_slice(token_BKL, token_BK[..., None], (0, 0, position))
    return _Beams(token_BKL, logp_BK), parent_BK, token_BK


def _both(a: _Beams, b: _Beams) -> _Beams:
    return _Beams(*(jnp.concatenate(pair, axis=1) for pair in zip(a, b, strict=True)))


def _best(beams: _Beams, P: int) -> tuple[_Beams, jax.Array]:
    """The P of the highest rank, earlier ones first among equals, and their places [B, P]."""
    rank_BP, place_BP = jax.lax.top_k(beams.rank_BP, P)
    return _Beams(
        jnp.take_along_axis(beams.token_BPL, place_BP[..., None], axis=1), rank_BP
    ), place_BP


def _reorder(state: DecodeState, parent_BP: jax.Array) -> DecodeState:
    """Gives each hypothesis the cache of the one it continues.

    Keys and values of the encoder stay: they are the same for all hypotheses of a row.
    """
    B, P = parent_BP.shape

    def move(x: jax.Array) -> jax.Array:
        x_NBP = x.reshape(x.shape[0], B, P, *x.shape[2:])
        index = parent_BP.reshape(1, B, P, *(1,) * (x.ndim - 2))
        return jnp.take_along_axis(x_NBP, index, axis=2).reshape(x.shape)

    def layer(cache: Any) -> Any:
        moved = {name: move(getattr(cache, name)) for name in ("key_BLHK", "value_BLHK")}
        return dataclasses.replace(cache, **moved)

    return dataclasses.replace(state, cache_N=[layer(cache) for cache in state.cache_N])
