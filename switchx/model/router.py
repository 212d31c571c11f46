"""The router: tokens to probabilities, probabilities to an assignment of experts and slots."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from switchx.model.config import ModelConfig, SwitchConfig
from switchx.model.layers import parameter, truncated_normal
from switchx.model.noise import Noise


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Assignment:
    """Where each token's J choices go.

    Attributes:
      expert_GSJ: int32, the expert chosen.
      slot_GSJ: int32, the token's place among those sent to that expert in its group, in
        order of choice, then of the sequence. Places from the capacity on do not exist.
      gate_GSJ: float32, the weight of the expert's output; 0 where the choice is not kept.
      kept_GSJ: bool, False where the expert was full or the token is padding.
    """

    expert_GSJ: jax.Array
    slot_GSJ: jax.Array
    gate_GSJ: jax.Array
    kept_GSJ: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RoutingStats:
    """What routing did, float32: means over groups, padding left out. One row per layer, stacked.

    Attributes:
      balance_loss: E * sum_e f_e P_e (eq. 4 without alpha): 1 when uniform, E on collapse.
      z_loss: mean of logsumexp(logits)^2 (ST-MoE, eq. 5).
      load_E: f, the share of choices that fell on each expert, before capacity.
      dropped_fraction: share of choices that found their expert full.
      entropy: of the router's distribution, nats, mean over tokens.
      gate_mean: probability of the first choice, mean over tokens.
    """

    balance_loss: jax.Array
    z_loss: jax.Array
    load_E: jax.Array
    dropped_fraction: jax.Array
    entropy: jax.Array
    gate_mean: jax.Array


def expert_capacity(config: SwitchConfig, group_size: int, train: bool) -> int:
    """Slots per expert and group (eq. 3 within a group): factor times an equal share of choices.

    Rounded down as in the original code, at least min_capacity, at most the group.
    """
    factor = config.train_capacity_factor if train else config.eval_capacity_factor
    # The small addition keeps 1.1 * 10 from being rounded down to 10.
    share = int(factor * group_size * config.top_k / config.num_experts + 1e-6)
    return min(group_size, max(share, config.min_capacity))


class Router(nnx.Module):
    """Probabilities from a product in float32, whatever the model's dtype (paper, section 2.4)."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        assert config.switch is not None
        self.config = config.switch
        init = truncated_normal(config.init_scale, config.d_model)
        shape = (config.d_model, config.switch.num_experts)
        self.kernel_DE = parameter(rngs, init, shape, ("embed", None))

    def __call__(self, x_GSD: jax.Array, noise_G: Noise | None) -> jax.Array:
        """Returns router logits, float32 [G, S, E]; jitters its input when `noise_G` is given."""
        x_GSD = x_GSD.astype(jnp.float32)
        if noise_G is not None and self.config.jitter:
            eps = self.config.jitter
            x_GSD = x_GSD * noise_G.uniform(x_GSD.shape[1:], 1.0 - eps, 1.0 + eps)
        # HIGHEST: a TPU would otherwise take float32 operands through bfloat16 products.
        return jnp.einsum(
            "gsd,de->gse", x_GSD, self.kernel_DE[...], precision=jax.lax.Precision.HIGHEST
        )


def assign(probs_GSE: jax.Array, mask_GS: jax.Array, top_k: int, capacity: int) -> Assignment:
    """Gives each token its `top_k` most probable experts, as far as they have room.

    First choices of all tokens are placed before any second choice, each in sequence order.
    One choice keeps its probability as gate (eq. 2); several are divided by their sum.

    Args:
      probs_GSE: float32 router probabilities; ties go to the lower expert.
      mask_GS: bool, False for padding, which takes no slot.
    """
    prob_GSJ, expert_GSJ = top_choices(probs_GSE, top_k)
    gate_GSJ = prob_GSJ
    if top_k > 1:
        gate_GSJ = prob_GSJ / (jnp.sum(prob_GSJ, axis=-1, keepdims=True) + 1e-9)
    slot_GSJ = places(expert_GSJ, mask_GS, probs_GSE.shape[-1])
    kept_GSJ = (slot_GSJ < capacity) & mask_GS[..., None]
    gate_GSJ = jnp.where(kept_GSJ, gate_GSJ, 0.0)
    return Assignment(expert_GSJ, slot_GSJ, gate_GSJ, kept_GSJ)


def top_choices(probs_GSE: jax.Array, top_k: int) -> tuple[jax.Array, jax.Array]:
    """The largest probabilities of each token and their experts, [G, S, J]; ties go to the lower.

    jax.lax.top_k says the same, but XLA does not partition it: every device would gather the
    probabilities of all tokens.
    """
    number_E = jnp.arange(probs_GSE.shape[-1], dtype=jnp.int32)
    left_GSE = jax.lax.stop_gradient(probs_GSE)
    probs, experts = [], []
    for _ in range(top_k):
        expert_GS = jnp.argmax(left_GSE, axis=-1).astype(jnp.int32)
        chosen_GSE = expert_GS[..., None] == number_E
        probs.append(jnp.sum(jnp.where(chosen_GSE, probs_GSE, 0.0), axis=-1))
        experts.append(expert_GS)
        left_GSE = jnp.where(chosen_GSE, -1.0, left_GSE)
    return jnp.stack(probs, axis=-1), jnp.stack(experts, axis=-1)


def places(expert_GSJ: jax.Array, mask_GS: jax.Array, num_experts: int) -> jax.Array:
    """int32 [G, S, J]: how many earlier unmasked choices of the group fell on the same expert.

    Earlier: first choices before second ones, then by position.
    """
    G, S, J = expert_GSJ.shape
    expert_GT = expert_GSJ.swapaxes(1, 2).reshape(G, J * S)
    mask_GT = jnp.tile(mask_GS, (1, J))
    chosen_GTE = jax.nn.one_hot(expert_GT, num_experts, dtype=jnp.int32) * mask_GT[..., None]
    before_GTE = jnp.cumsum(chosen_GTE, axis=1) - chosen_GTE
    place_GT = jnp.take_along_axis(before_GTE, expert_GT[..., None], axis=2)[..., 0]
    return place_GT.reshape(G, J, S).swapaxes(1, 2)


def routing_stats(
    logits_GSE: jax.Array, probs_GSE: jax.Array, assignment: Assignment, mask_GS: jax.Array
) -> RoutingStats:
    """Losses and statistics of one layer. f counts hard choices and carries no gradient; P does."""
    E, J = probs_GSE.shape[-1], assignment.expert_GSJ.shape[-1]
    weight_GS = mask_GS.astype(jnp.float32)
    tokens_G = jnp.maximum(weight_GS.sum(axis=1), 1.0)  # an all-padding group counts as zeros

    def group_mean(value_GS: jax.Array) -> jax.Array:
        return jnp.mean(jnp.sum(value_GS * weight_GS, axis=1) / tokens_G)

    chosen_GSE = jax.nn.one_hot(assignment.expert_GSJ, E, dtype=jnp.float32).sum(axis=2) / J
    f_GE = jnp.einsum("gse,gs->ge", chosen_GSE, weight_GS) / tokens_G[:, None]
    P_GE = jnp.einsum("gse,gs->ge", probs_GSE, weight_GS) / tokens_G[:, None]
    kept_GS = assignment.kept_GSJ.astype(jnp.float32).mean(axis=-1)
    log_z_GS = jax.nn.logsumexp(logits_GSE, axis=-1)
    return RoutingStats(
        balance_loss=E * jnp.mean(jnp.sum(jax.lax.stop_gradient(f_GE) * P_GE, axis=-1)),
        z_loss=group_mean(jnp.square(log_z_GS)),
        load_E=f_GE.mean(axis=0),
        dropped_fraction=group_mean(1.0 - kept_GS),
        entropy=group_mean(log_z_GS - jnp.sum(probs_GSE * logits_GSE, axis=-1)),
        gate_mean=group_mean(probs_GSE.max(axis=-1)),
    )
