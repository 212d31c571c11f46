"""What routing did: the router's losses and statistics, padding left out."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from switchx.model.routing.balance import Tally


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RoutingStats:
    """What routing did, float32: means over groups, padding left out. One row per layer, stacked.

    Attributes:
      balance_loss: E * sum_e f_e P_e (eq. 4 without alpha): 1 when uniform, E on collapse; each
        f_e weighted where SwitchConfig.balance_by says so.
      z_loss: mean of logsumexp(logits)^2 (ST-MoE, eq. 5).
      load_E: f, the share of wanted choices that fell on each expert, before capacity.
      dropped_fraction: share of wanted choices that found their expert, or its pool, full; where
        tokens are rerouted or experts choose, of tokens that no expert took.
      entropy: of the router's distribution, nats, mean over tokens.
      gate_mean: probability of the likeliest expert, mean over tokens.
      tally: sums over the tokens, where something balances over the whole batch.
    """

    balance_loss: jax.Array
    z_loss: jax.Array
    load_E: jax.Array
    dropped_fraction: jax.Array
    entropy: jax.Array
    gate_mean: jax.Array
    tally: Tally | None = None

    def over_parts(self, parts: int) -> "RoutingStats":
        """Of a batch, where this is what its equal parts add up to."""
        mean = jax.tree.map(lambda x: x / parts, dataclasses.replace(self, tally=None))
        return dataclasses.replace(mean, tally=self.tally)


def routing_stats(
    logits_GSE: jax.Array,
    mask_GS: jax.Array,
    count_GE: jax.Array,
    wanted_GSJ: jax.Array,
    kept_GSJ: jax.Array,
    balance_weights: Sequence[float] | None,
) -> RoutingStats:
    """Losses and statistics of one layer. f counts hard choices and carries no gradient; P does.

    Args:
      logits_GSE: float32 router logits.
      mask_GS: bool, False for padding.
      count_GE: choices that count as an expert's load.
      wanted_GSJ, kept_GSJ: bool, what asked for room and what found it.
      balance_weights: of each expert, SwitchConfig.balance_weights.
    """
    weight_GS = mask_GS.astype(jnp.float32)
    tokens_G = jnp.maximum(weight_GS.sum(axis=1), 1.0)  # an all-padding group counts as zeros

    def group_mean(value_GS: jax.Array) -> jax.Array:
        return jnp.mean(jnp.sum(value_GS * weight_GS, axis=1) / tokens_G)

    probs_GSE = jax.nn.softmax(logits_GSE, axis=-1)
    f_GE = count_GE / jnp.maximum(count_GE.sum(axis=1, keepdims=True), 1)
    P_GE = jnp.einsum("gse,gs->ge", probs_GSE, weight_GS) / tokens_G[:, None]
    work_GE = f_GE if balance_weights is None else f_GE * jnp.array(balance_weights, jnp.float32)
    wanted_G, kept_G = (jnp.sum(x, axis=(1, 2)) for x in (wanted_GSJ, kept_GSJ))
    log_z_GS = jax.nn.logsumexp(logits_GSE, axis=-1)
    E = logits_GSE.shape[-1]
    return RoutingStats(
        balance_loss=E * jnp.mean(jnp.sum(work_GE * P_GE, axis=-1)),
        z_loss=group_mean(jnp.square(log_z_GS)),
        load_E=f_GE.mean(axis=0),
        dropped_fraction=jnp.mean((wanted_G - kept_G) / jnp.maximum(wanted_G, 1)),
        entropy=group_mean(log_z_GS - jnp.sum(probs_GSE * logits_GSE, axis=-1)),
        gate_mean=group_mean(probs_GSE.max(axis=-1)),
    )
