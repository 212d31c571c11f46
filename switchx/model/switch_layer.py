"""The switch layer: group the tokens, route, dispatch, compute, combine."""

import dataclasses

import jax
from flax import nnx

from switchx.errors import UserError
from switchx.model.config import ModelConfig, SwitchConfig
from switchx.model.dispatch import dispatcher
from switchx.model.experts import Experts
from switchx.model.noise import Noise
from switchx.model.router import Router, RoutingStats, assign, expert_capacity, routing_stats
from switchx.sharding import constrain


@dataclasses.dataclass(frozen=True)
class Grouping:
    """How tokens are cut into groups: tokens per group, slots per expert and group."""

    size: int
    capacity: int

    @classmethod
    def of(cls, config: SwitchConfig, size: int, train: bool) -> "Grouping":
        return cls(size, expert_capacity(config, size, train))


class SwitchLayer(nnx.Module):
    """A feed-forward layer of which each token uses one expert (Switch Transformers, eq. 1-6)."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.config = config
        self.router = Router(config, rngs)
        self.experts = Experts(config, rngs)

    def __call__(
        self, x_BLD: jax.Array, mask_BL: jax.Array, grouping: Grouping, noise: Noise | None
    ) -> tuple[jax.Array, RoutingStats]:
        """Routes every unmasked token within groups of consecutive tokens.

        Args:
          mask_BL: bool, False for padding: it is not routed, counted or given a slot.
          noise: keys per row while training, None for evaluation.

        Returns:
          [B, L, D], zero for dropped tokens and padding, and the layer's statistics.
        """
        config = self.config.switch
        assert config is not None
        B, L, D = x_BLD.shape
        G = num_groups(B, L, grouping.size)
        x_GSD = constrain(x_BLD.reshape(G, grouping.size, D), "group", None, "embed")
        mask_GS = mask_BL.reshape(G, grouping.size)
        noise_G = None if noise is None else noise.regroup(G, L)

        logits_GSE = self.router(x_GSD, None if noise_G is None else noise_G.fold(0))
        probs_GSE = jax.nn.softmax(logits_GSE, axis=-1)
        assignment = assign(probs_GSE, mask_GS, config.top_k, grouping.capacity)
        stats = routing_stats(logits_GSE, probs_GSE, assignment, mask_GS)

        move = dispatcher(config.dispatcher)
        x_GECD = move.dispatch(x_GSD, assignment, config.num_experts, grouping.capacity)
        x_EGCD = to_experts(x_GECD)
        y_EGCD = self.experts(x_EGCD, None if noise_G is None else noise_G.fold(1))
        y_GSD = move.combine(from_experts(y_EGCD), assignment)
        y_GSD = constrain(y_GSD, "group", None, "embed")
        return y_GSD.reshape(B, L, D), stats


def to_experts(x_GECD: jax.Array) -> jax.Array:
    """[G, E, C, D] to [E, G, C, D] on the experts' devices.

    Constraining right before and right after makes it one all-to-all over the expert axis;
    a single constraint compiles to all-gathers.
    """
    x_GECD = constrain(x_GECD, "group", None, None, "embed")
    return constrain(x_GECD.swapaxes(0, 1), "expert", "expert_group", None, "embed")


def from_experts(y_EGCD: jax.Array) -> jax.Array:
    """The way back: [E, G, C, D] to [G, E, C, D] on the groups' devices, one all-to-all."""
    y_EGCD = constrain(y_EGCD, "expert", "expert_group", None, "embed")
    return constrain(y_EGCD.swapaxes(0, 1), "group", None, None, "embed")


def num_groups(B: int, L: int, group_size: int) -> int:
    """Groups in B x L tokens, or the error that says which numbers to change."""
    if B * L % group_size:
        raise UserError(
            f"{B} sequences of {L} are {B * L} tokens, which do not divide into groups of "
            f"{group_size}: change BATCH_SIZE, TASK_FEATURE_LENGTHS or the stack's "
            "ENCODER_GROUP_SIZE or DECODER_GROUP_SIZE."
        )
    return B * L // group_size
