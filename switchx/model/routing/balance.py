"""Keeping experts equally loaded over a whole batch: what each switch layer adds up for that.

A bias per expert is added to the router's logits for the choice alone: gates are made without it.
The training step moves it, once per step, by what all tokens of the batch did; so it is a parameter
without a gradient, which no optimizer sees. Two rules move it; of k of E experts per token:

- bias balancing (Wang et al. 2024, 2408.15664), `moved_by_counts`:
  b_e += u sign(mean load - load_e);
- quantile balancing (after Su 2026, kexue.fm/archives/11619), `moved_by_quantiles`. With scores
  s_te = logit_te + b_e, a token's threshold a_t is midway between its k-th and (k+1)-th largest,
  and it chooses e where the margin m_te = s_te - a_t is above 0; where b_e is lower by q, where
  m_te > q. So with b_e -= q_e, q_e the (1 - k/E)-quantile of m_te over t, the share k/E of the
  tokens would choose e. That minimises the dual of the best balanced assignment (largest sum of
  x_te logit_te, each token k experts, each expert k/E of the tokens) while the thresholds stand;
  with new ones in every step it is descent in turns.

Sums of counts are integers: the same on every mesh and in microbatches. That is why the quantile is
read off counts of margins below fixed edges, finer the nearer to 0, where a balanced expert's lies.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from switchx.model.routing.choices import top_choices

LOSS_OVER = ("group", "batch")

# 1e-4 to 100 nats, each 1.16 times the one before.
_POSITIVE = np.geomspace(1e-4, 1e2, 96)
EDGES_Q = np.concatenate([-_POSITIVE[::-1], [0.0], _POSITIVE]).astype(np.float32)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Tally:
    """Sums over the tokens of a batch, or of a part of it, padding left out.

    One row per layer, stacked.

    Attributes:
      tokens: int32.
      count_E: int32, the choices that fell on each expert, before capacity.
      below_EQ: int32, how many tokens have a margin for an expert of at most each of EDGES_Q; None
        where no quantile is looked for.
      prob_E: float32, the router's probabilities; None where no loss is over the batch.
    """

    tokens: jax.Array
    count_E: jax.Array
    below_EQ: jax.Array | None
    prob_E: jax.Array | None


@dataclasses.dataclass(frozen=True)
class Balance:
    """What a layer is to add up while training. See SwitchConfig.

    Attributes:
      top_k: experts per token.
      quantiles: whether margins are counted.
      probs: whether probabilities are added up.
    """

    top_k: int
    quantiles: bool
    probs: bool

    def tally(
        self,
        logits_GSE: jax.Array,
        bias_E: jax.Array | None,
        mask_GS: jax.Array,
        count_GE: jax.Array,
    ) -> Tally:
        """Of one layer; `count_GE`: choices that count as an expert's load."""
        below_EQ = prob_E = None
        if self.quantiles:
            assert bias_E is not None
            margin_GSE = margins(jax.lax.stop_gradient(logits_GSE) + bias_E, self.top_k)
            below_EQ = _counted(margin_GSE, mask_GS)
        if self.probs:
            probs_GSE = jax.nn.softmax(logits_GSE, axis=-1)
            prob_E = jnp.einsum("gse,gs->e", probs_GSE, mask_GS.astype(jnp.float32))
        tokens = jnp.sum(mask_GS, dtype=jnp.int32)
        return Tally(tokens, jnp.sum(count_GE, axis=0, dtype=jnp.int32), below_EQ, prob_E)


def margins(score_GSE: jax.Array, top_k: int) -> jax.Array:
    """How far each expert's score is above what it takes to be among the token's `top_k`."""
    _, best_GSJ = top_choices(score_GSE, score_GSE, top_k + 1)
    return score_GSE - (best_GSJ[..., -2:-1] + best_GSJ[..., -1:]) / 2


def _counted(margin_GSE: jax.Array, mask_GS: jax.Array) -> jax.Array:
    """How many tokens have a margin of at most each edge, int32 [E, Q].

    Edge by edge, as all at once would be an array of Q times the margins; and of each group first,
    so that devices add up once.
    """
    margin_GSE = jnp.where(mask_GS[..., None], margin_GSE, jnp.inf)

    def of_edge(edge: jax.Array) -> jax.Array:
        return jnp.sum(margin_GSE <= edge, axis=1, dtype=jnp.int32)

    below_QGE = jax.lax.map(of_edge, jnp.asarray(EDGES_Q))
    return jnp.sum(below_QGE, axis=1).T


def moved_by_counts(bias_NE: jax.Array, tally: Tally, rate: float) -> jax.Array:
    """The biases of N layers after a step of bias balancing."""
    count_NE = tally.count_E
    E, total_N1 = count_NE.shape[-1], jnp.sum(count_NE, axis=-1, keepdims=True)
    # Whole numbers below and above the mean, so that nothing is rounded.
    below, above = count_NE < -(-total_N1 // E), count_NE > total_N1 // E
    return bias_NE + rate * (below.astype(jnp.float32) - above.astype(jnp.float32))


def moved_by_quantiles(bias_NE: jax.Array, tally: Tally, share: float, top_k: int) -> jax.Array:
    """The biases of N layers after a step of quantile balancing, of which `share` is taken.

    Their mean stays where it was: what all experts have in common moves no choice.
    """
    assert tally.below_EQ is not None
    E = bias_NE.shape[-1]
    wanted_N = tally.tokens.astype(jnp.float32) * (1.0 - top_k / E)
    quantile_NE = _read_off(tally.below_EQ.astype(jnp.float32), wanted_N[:, None])
    step_NE = jnp.mean(quantile_NE, axis=-1, keepdims=True) - quantile_NE
    return bias_NE + share * step_NE


def _read_off(below_NEQ: jax.Array, wanted_N1: jax.Array) -> jax.Array:
    """The margin that so many lie below, interpolated between two edges; [N, E]."""
    last = len(EDGES_Q) - 1
    reached_NE = jnp.sum(below_NEQ < wanted_N1[..., None], axis=-1)
    upper_NE = jnp.clip(reached_NE, 1, last)

    def at(index_NE: jax.Array) -> jax.Array:
        return jnp.take_along_axis(below_NEQ, index_NE[..., None], axis=-1)[..., 0]

    edges_Q = jnp.asarray(EDGES_Q)
    low_NE, high_NE = at(upper_NE - 1), at(upper_NE)
    part_NE = (wanted_N1 - low_NE) / jnp.maximum(high_NE - low_NE, 1.0)
    width_NE = edges_Q[upper_NE] - edges_Q[upper_NE - 1]
    return edges_Q[upper_NE - 1] + width_NE * jnp.clip(part_NE, 0.0, 1.0)


def batch_balance_loss(own: Tally, whole: Tally) -> jax.Array:
    """What a part of a batch adds to E sum_e f_e P_e, summed over layers, f and P of the batch.

    Qiu et al. (2025, 2501.11873): f is a constant, P carries the gradient.
    """
    assert own.prob_E is not None
    E = own.count_E.shape[-1]
    load_NE = whole.count_E / jnp.maximum(jnp.sum(whole.count_E, axis=-1, keepdims=True), 1)
    prob_NE = own.prob_E / jnp.maximum(whole.tokens, 1)[:, None]
    return E * jnp.sum(load_NE * prob_NE)
