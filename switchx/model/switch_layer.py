"""The switch layer: group the tokens, route, dispatch, compute, combine."""

import dataclasses
from typing import Any

import jax
from flax import nnx

from switchx.errors import UserError
from switchx.model.config import ModelConfig, SwitchConfig
from switchx.model.dispatch import DISPATCHERS
from switchx.model.noise import Noise, dropout
from switchx.model.products import slot_product
from switchx.model.ragged import ragged
from switchx.model.router import Router, expert_capacity
from switchx.model.routing import EXPERT_SITE, INPUT_SITE, Assignment, route
from switchx.model.routing_stats import RoutingStats
from switchx.sharding import constrain


@dataclasses.dataclass(frozen=True)
class Grouping:
    """How the tokens of a stack are cut into groups, and what a group's experts hold.

    Attributes:
      size: tokens per group.
      capacity: slots per expert and group; None: as many as it takes (dropless).
      causal: whether tokens may depend on earlier ones only, as in the decoder.
    """

    size: int
    capacity: int | None
    causal: bool

    @classmethod
    def of(cls, config: SwitchConfig, causal: bool, train: bool) -> "Grouping":
        """As the configuration says."""
        size = config.decoder_group_size if causal else config.encoder_group_size
        dropless = config.dispatcher == "ragged"
        return cls(size, None if dropless else expert_capacity(config, size, train), causal)

    @classmethod
    def for_answers(cls, config: SwitchConfig, length: int, causal: bool) -> "Grouping":
        """Each sequence on its own and nothing dropped: answers do not depend on neighbours."""
        choosing = config.encoder_routing == "experts_choose" and not causal
        return cls(length, expert_capacity(config, length, False) if choosing else None, causal)


class SwitchLayer(nnx.Module):
    """A layer of which each token uses one expert or a few (Switch Transformers, eq. 1-6)."""

    def __init__(self, config: ModelConfig, experts: Any, rngs: nnx.Rngs):
        """`experts`: a module with `kernels` and `compute`, as `Experts` has them."""
        self.config = config
        self.router = Router(config, rngs)
        self.experts = experts

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

        logits_GSE = self.router(x_GSD, None if noise_G is None else noise_G.fold(INPUT_SITE))
        assignment, stats = route(
            config, logits_GSE, mask_GS, grouping.capacity, grouping.causal, noise_G
        )
        expert_noise_G = None if noise_G is None else noise_G.fold(EXPERT_SITE)
        if grouping.capacity is None:
            y_GSD = self._dropless(x_GSD, assignment, expert_noise_G)
        else:
            y_GSD = self._through_slots(x_GSD, assignment, grouping.capacity, expert_noise_G)
        y_GSD = constrain(y_GSD, "group", None, self.experts.output_axis)
        return y_GSD.reshape(B, L, y_GSD.shape[-1]), stats

    def _through_slots(
        self, x_GSD: jax.Array, assignment: Assignment, capacity: int, noise_G: Noise | None
    ) -> jax.Array:
        assert self.config.switch is not None
        move = DISPATCHERS[self.config.switch.dispatcher]
        x_GECD = move.dispatch(x_GSD, assignment, self.config.switch.num_experts, capacity)

        def drop(h_EGCF: jax.Array) -> jax.Array:
            # The groups lead for their keys' sake only: the swaps fuse away.
            h_EGCF = dropout(h_EGCF.swapaxes(0, 1), self._dropout_rate, noise_G).swapaxes(0, 1)
            return constrain(h_EGCF, "expert", "expert_group", None, "mlp")

        y_EGCD = self.experts.compute(
            self.experts.kernels(), to_experts(x_GECD), slot_product, drop
        )
        return move.combine(from_experts(y_EGCD, self.experts.output_axis), assignment)

    def _dropless(
        self, x_GSD: jax.Array, assignment: Assignment, noise_G: Noise | None
    ) -> jax.Array:
        return ragged(x_GSD, assignment, self.experts, self._dropout_rate, noise_G)

    @property
    def _dropout_rate(self) -> float:
        assert self.config.switch is not None
        rate = self.config.switch.expert_dropout_rate
        return self.config.dropout_rate if rate is None else rate


def to_experts(x_GECD: jax.Array) -> jax.Array:
    """[G, E, C, D] to [E, G, C, D] on the experts' devices.

    Constraining right before and right after makes it one all-to-all over the expert axis;
    a single constraint compiles to all-gathers.
    """
    x_GECD = constrain(x_GECD, "group", None, None, "embed")
    return constrain(x_GECD.swapaxes(0, 1), "expert", "expert_group", None, "embed")


def from_experts(y_EGCD: jax.Array, axis: str) -> jax.Array:
    """The way back: [E, G, C, D] to [G, E, C, D] on the groups' devices, one all-to-all.

    `axis` is the logical name of the last dimension.
    """
    y_EGCD = constrain(y_EGCD, "expert", "expert_group", None, axis)
    return constrain(y_EGCD.swapaxes(0, 1), "group", None, None, axis)


def num_groups(B: int, L: int, group_size: int) -> int:
    """Groups in B x L tokens, or the error that says which numbers to change."""
    if B * L % group_size:
        raise UserError(
            f"{B} sequences of {L} are {B * L} tokens, which do not divide into groups of "
            f"{group_size}: change BATCH_SIZE, TASK_FEATURE_LENGTHS or the stack's "
            "ENCODER_GROUP_SIZE or DECODER_GROUP_SIZE."
        )
    return B * L // group_size
