"""The switch layer: group the tokens, route, dispatch, compute, combine."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from switchx.errors import UserError
from switchx.model.config import ModelConfig
from switchx.model.dispatch import DISPATCHERS, Dispatcher, ExpertsByWidth, for_answers
from switchx.model.flaxformer_groups import Filling, FlaxformerGroups
from switchx.model.noise import Noise
from switchx.model.ranges import Range, Ranges
from switchx.model.router import Router, expert_capacity
from switchx.model.routing import (
    EXPERT_SITE,
    Assignment,
    Balance,
    Capacity,
    Policy,
    RoutingStats,
    Tokens,
    TokensChoose,
)
from switchx.model.switch_config import SwitchConfig
from switchx.sharding import constrain


@dataclasses.dataclass(frozen=True)
class Grouping:
    """How the tokens of a stack are cut into groups, and how a group is routed.

    Attributes:
      size: tokens per group.
      capacity: slots per expert, or pool of experts, and group; None: as many as it takes
        (dropless).
      policy: which experts a group's tokens use.
      dispatcher: how they get there.
      filling: how a batch is filled up first; `size` is then the most tokens, and `capacity` is not
        used. None: not at all.
      recorded: whether layers return their assignments, and their routers' distributions.
      watched: whether layers return the ranges of what they compute, those without experts too.
      balance: what layers add up over the batch; None: nothing.
    """

    size: int
    capacity: Capacity | None
    policy: Policy
    dispatcher: Dispatcher
    filling: Filling | None = None
    recorded: bool = False
    watched: bool = False
    balance: Balance | None = None

    @classmethod
    def of(cls, config: SwitchConfig, causal: bool, train: bool) -> "Grouping":
        """As the configuration says, for the encoder or (`causal`) the decoder."""
        size = config.decoder_group_size if causal else config.encoder_group_size
        dispatcher = DISPATCHERS[config.dispatcher]
        capacity = None if config.dropless else expert_capacity(config, size, train)
        filling = None
        if config.group_padding == "flaxformer":
            filling = Filling.of(config, train)
        balance = config.balance(train)
        return cls(size, capacity, config.policy(causal), dispatcher, filling, balance=balance)

    def of_batch(self, B: int, L: int) -> tuple["Grouping", int, int]:
        """This for B sequences of L tokens, and the rows and length that they are filled up to."""
        if self.filling is None:
            return self, B, L
        cut = FlaxformerGroups.of(B, L, self.filling.num_experts, self.size)
        own = dataclasses.replace(
            self, size=cut.size, capacity=self.filling.capacity(cut.size), filling=None
        )
        return own, cut.rows, cut.length

    def by_token(self, x_NGSE: jax.Array, B: int, L: int) -> jax.Array:
        """[N, B, L, E] of what groups of B sequences of L tokens have, whatever E counts."""
        _, rows, length = self.of_batch(B, L)
        # Groups are rows of the batch one behind the other, or of what it was filled up to.
        return x_NGSE.reshape(len(x_NGSE), rows, length, x_NGSE.shape[-1])[:, :B, :L]

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
        """The same, their layers returning assignments and distributions."""
        stacks = self.encoder, self.decoder
        return Groupings(*(dataclasses.replace(stack, recorded=True) for stack in stacks))

    def watched(self) -> "Groupings":
        """The same, their layers returning the ranges of what they compute."""
        stacks = self.encoder, self.decoder
        return Groupings(*(dataclasses.replace(stack, watched=True) for stack in stacks))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Record:
    """What routing did with each token in one layer.

    Attributes:
      probs_GSE: the router's distribution.
      score_GSE: what tokens rank experts by, the same unless there is a bias.
    """

    assignment: Assignment
    probs_GSE: jax.Array
    score_GSE: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Routed:
    """What routing did in one layer.

    Attributes:
      record: where its grouping is recorded, else None.
      ranges: of "router" (its logits) and "experts" (their outputs, combined), where its grouping
        is watched.
    """

    stats: RoutingStats
    record: Record | None
    ranges: Ranges


class SwitchLayer(nnx.Module):
    """A layer of which each token uses one expert or a few (Switch Transformers, eq. 1-6)."""

    def __init__(
        self, config: ModelConfig, switch: SwitchConfig, experts: ExpertsByWidth, rngs: nnx.Rngs
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
        if grouping.filling is not None:
            return self._filled_up(x_BLD, mask_BL, grouping, noise)
        B, L, D = x_BLD.shape
        G = num_groups(B, L, grouping.size)
        x_GSD = constrain(x_BLD.reshape(G, grouping.size, D), "group", None, "embed")
        mask_GS = mask_BL.reshape(G, grouping.size)
        noise = noise.regroup(G, L)

        with jax.named_scope("router"):
            logits_GSE = self.router(x_GSD, noise)
            bias_E = self.router.bias()
            biased_GSE = logits_GSE if bias_E is None else logits_GSE + bias_E
            score_GSE = self.router.exploration.scores(biased_GSE, noise)
            tokens = Tokens(logits_GSE, score_GSE, mask_GS, noise, bias_E, grouping.balance)
            assignment, stats = grouping.policy.route(tokens, grouping.capacity)
        y_GSD = grouping.dispatcher(
            x_GSD,
            assignment,
            self.experts.by_width,
            grouping.capacity,
            self.dropout_rate,
            noise.fold(EXPERT_SITE),
        )
        y_GSD = constrain(y_GSD, "group", None, self.experts.by_width[0].output_axis)
        ranges = {}
        if grouping.watched:
            ranges = {"router": Range.of(logits_GSE), "experts": Range.of(y_GSD)}
        record = Record(assignment, tokens.probs(), score_GSE) if grouping.recorded else None
        return y_GSD.reshape(B, L, y_GSD.shape[-1]), Routed(stats, record, ranges)

    def _filled_up(
        self, x_BLD: jax.Array, mask_BL: jax.Array, grouping: Grouping, noise: Noise
    ) -> tuple[jax.Array, Routed]:
        """The same of a batch that flaxformer fills up; zeros are routed like tokens."""
        B, L, _ = x_BLD.shape
        grouping, rows, length = grouping.of_batch(B, L)
        zeroed_BLD = x_BLD * mask_BL[..., None].astype(x_BLD.dtype)
        filled = jnp.pad(zeroed_BLD, ((0, rows - B), (0, length - L), (0, 0)))
        # Groups that begin in a row that was added hold zeros alone: any noise does.
        noise = noise.take(jnp.minimum(jnp.arange(rows), B - 1))
        y, routed = self(filled, jnp.ones((rows, length), bool), grouping, noise)
        return y[:B, :L], routed


def num_groups(B: int, L: int, group_size: int) -> int:
    """Groups in B x L tokens, or the error that says which numbers to change."""
    if B * L % group_size:
        raise UserError(
            f"{B} sequences of {L} are {B * L} tokens, which do not divide into groups of "
            f"{group_size}: change BATCH_SIZE, TASK_FEATURE_LENGTHS or the stack's "
            "ENCODER_GROUP_SIZE or DECODER_GROUP_SIZE."
        )
    return B * L // group_size
