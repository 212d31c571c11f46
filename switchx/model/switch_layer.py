"""The switch layer: group the tokens, route, dispatch, compute, combine."""

import dataclasses

import jax
from flax import nnx

from switchx.errors import UserError
from switchx.model.config import ModelConfig, SwitchConfig
from switchx.model.dispatch import DISPATCHERS, Dispatcher, ExpertNetworks, for_answers
from switchx.model.noise import Noise
from switchx.model.ranges import Range, Ranges
from switchx.model.router import Router, expert_capacity
from switchx.model.routing import (
    EXPERT_SITE,
    Assignment,
    Policy,
    RoutingStats,
    Tokens,
    TokensChoose,
)
from switchx.sharding import constrain


@dataclasses.dataclass(frozen=True)
class Grouping:
    """How the tokens of a stack are cut into groups, and how a group is routed.

    Attributes:
      size: tokens per group.
      capacity: slots per expert and group; None: as many as it takes (dropless).
      policy: which experts a group's tokens use.
      dispatcher: how they get there.
      recorded: whether layers return their assignments.
      watched: whether layers return the ranges of what they compute, those without experts too.
    """

    size: int
    capacity: int | None
    policy: Policy
    dispatcher: Dispatcher
    recorded: bool = False
    watched: bool = False

    @classmethod
    def of(cls, config: SwitchConfig, causal: bool, train: bool) -> "Grouping":
        """As the configuration says, for the encoder or (`causal`) the decoder."""
        size = config.decoder_group_size if causal else config.encoder_group_size
        dispatcher = DISPATCHERS[config.dispatcher]
        capacity = None if dispatcher.dropless else expert_capacity(config, size, train)
        return cls(size, capacity, config.policy(causal), dispatcher)

    @classmethod
    def for_answers(cls, config: SwitchConfig, length: int, causal: bool) -> "Grouping":
        """Of decoding and of scoring: each sequence on its own and nothing dropped.

        So an answer depends neither on its neighbours in the batch nor on how much of it is
        computed at a time. A policy that cannot do without a capacity has evaluation's.
        """
        policy = config.policy(causal)
        if policy.needs_capacity:
            capacity = expert_capacity(config, length, train=False)
            return cls(length, capacity, policy, DISPATCHERS[config.dispatcher])
        return cls(length, None, policy, for_answers())


# A dense model has nothing to group, and never looks at this.
NO_GROUPING = Grouping(1, None, TokensChoose(), DISPATCHERS["ragged"])


@dataclasses.dataclass(frozen=True)
class Groupings:
    """Of the two stacks."""

    encoder: Grouping
    decoder: Grouping

    @classmethod
    def of(cls, config: SwitchConfig | None, train: bool) -> "Groupings":
        """As the configuration says; None is a dense model's."""
        if config is None:
            return cls(NO_GROUPING, NO_GROUPING)
        return cls(*(Grouping.of(config, causal, train) for causal in (False, True)))

    @classmethod
    def for_answers(
        cls, config: SwitchConfig | None, input_length: int, target_length: int
    ) -> "Groupings":
        """See Grouping.for_answers. Decoding a token at a time has a target_length of 1."""
        if config is None:
            return cls(NO_GROUPING, NO_GROUPING)
        encoder = Grouping.for_answers(config, input_length, causal=False)
        return cls(encoder, Grouping.for_answers(config, target_length, causal=True))

    def recorded(self) -> "Groupings":
        """The same, their layers returning assignments."""
        stacks = self.encoder, self.decoder
        return Groupings(*(dataclasses.replace(stack, recorded=True) for stack in stacks))

    def watched(self) -> "Groupings":
        """The same, their layers returning the ranges of what they compute."""
        stacks = self.encoder, self.decoder
        return Groupings(*(dataclasses.replace(stack, watched=True) for stack in stacks))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Routed:
    """What routing did in one layer.

    Attributes:
      assignment: where its grouping is recorded, else None.
      ranges: of "router" (its logits) and "experts" (their outputs, combined), where its grouping
        is watched.
    """

    stats: RoutingStats
    assignment: Assignment | None
    ranges: Ranges


class SwitchLayer(nnx.Module):
    """A layer of which each token uses one expert or a few (Switch Transformers, eq. 1-6)."""

    def __init__(
        self, config: ModelConfig, switch: SwitchConfig, experts: ExpertNetworks, rngs: nnx.Rngs
    ):
        rate = switch.expert_dropout_rate
        self.dropout_rate = config.dropout_rate if rate is None else rate
        self.router = Router(config, switch, rngs)
        self.experts = experts

    def __call__(
        self, x_BLD: jax.Array, mask_BL: jax.Array, grouping: Grouping, noise: Noise
    ) -> tuple[jax.Array, Routed]:
        """Routes every unmasked token within groups of consecutive tokens.

        Args:
          mask_BL: bool, False for padding: it is not routed, counted or given a slot.
          noise: keys per row while training.

        Returns:
          [B, L, D], zero for dropped tokens and padding, and what routing did.
        """
        B, L, D = x_BLD.shape
        G = num_groups(B, L, grouping.size)
        x_GSD = constrain(x_BLD.reshape(G, grouping.size, D), "group", None, "embed")
        mask_GS = mask_BL.reshape(G, grouping.size)
        noise = noise.regroup(G, L)

        with jax.named_scope("router"):
            logits_GSE = self.router(x_GSD, noise)
            score_GSE = self.router.exploration.scores(logits_GSE, noise)
            tokens = Tokens(logits_GSE, score_GSE, mask_GS, noise)
            assignment, stats = grouping.policy.route(tokens, grouping.capacity)
        y_GSD = grouping.dispatcher(
            x_GSD,
            assignment,
            self.experts,
            grouping.capacity,
            self.dropout_rate,
            noise.fold(EXPERT_SITE),
        )
        y_GSD = constrain(y_GSD, "group", None, self.experts.output_axis)
        ranges = {}
        if grouping.watched:
            ranges = {"router": Range.of(logits_GSE), "experts": Range.of(y_GSD)}
        routed = Routed(stats, assignment if grouping.recorded else None, ranges)
        return y_GSD.reshape(B, L, y_GSD.shape[-1]), routed


def num_groups(B: int, L: int, group_size: int) -> int:
    """Groups in B x L tokens, or the error that says which numbers to change."""
    if B * L % group_size:
        raise UserError(
            f"{B} sequences of {L} are {B * L} tokens, which do not divide into groups of "
            f"{group_size}: change BATCH_SIZE, TASK_FEATURE_LENGTHS or the stack's "
            "ENCODER_GROUP_SIZE or DECODER_GROUP_SIZE."
        )
    return B * L // group_size
