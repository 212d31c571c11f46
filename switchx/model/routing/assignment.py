"""What a routing policy is, and what it makes: an assignment of tokens to experts and slots."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import jax

from switchx.model.noise import Noise
from switchx.model.routing.balance import Balance
from switchx.model.routing.capacity import Capacity
from switchx.model.routing.stats import RoutingStats, routing_stats

# The sites of a switch layer's randomness; the experts' dropout has one too.
INPUT_SITE, EXPERT_SITE, SAMPLE_SITE, SECOND_SITE = range(4)

# An object with the fields of SwitchConfig, which is made of policies and so stands above them.
Settings = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Assignment:
    """Where each token's J choices go.

    Attributes:
      expert_GSJ: int32, the expert chosen.
      slot_GSJ: int32, the choice's place among those its expert, or its pool of experts, keeps in
        the group; of no meaning where it is not kept.
      gate_GSJ: float32, the weight of the expert's output; 0 where the choice is not kept.
      kept_GSJ: bool, False where there was no slot, the choice not wanted, or the token padding.
    """

    expert_GSJ: jax.Array
    slot_GSJ: jax.Array
    gate_GSJ: jax.Array
    kept_GSJ: jax.Array


@dataclasses.dataclass(frozen=True)
class Tokens:
    """What is known of the tokens that are to be routed.

    Attributes:
      logits_GSE: float32 router logits.
      score_GSE: float32, by which a token ranks experts (see Exploration).
      mask_GS: bool, False for padding, which is not routed, counted or given a slot.
      noise: keys per group.
      bias_E: added to the logits for the scores alone; None: nothing.
      balance: what is added up over the batch; None: nothing.
    """

    logits_GSE: jax.Array
    score_GSE: jax.Array
    mask_GS: jax.Array
    noise: Noise
    bias_E: jax.Array | None = None
    balance: Balance | None = None

    def probs(self) -> jax.Array:
        """The router's distribution (eq. 1), [G, S, E]."""
        return jax.nn.softmax(self.logits_GSE, axis=-1)

    def stats(
        self,
        count_GE: jax.Array,
        wanted_GSJ: jax.Array,
        kept_GSJ: jax.Array,
        balance_weights: Sequence[float] | None,
    ) -> RoutingStats:
        """What routing did to them, see `routing_stats`, with what is added up over the batch."""
        stats = routing_stats(
            self.logits_GSE, self.mask_GS, count_GE, wanted_GSJ, kept_GSJ, balance_weights
        )
        if self.balance is None:
            return stats
        tally = self.balance.tally(self.logits_GSE, self.bias_E, self.mask_GS, count_GE)
        return dataclasses.replace(stats, tally=tally)


class Policy(Protocol):
    """Decides which experts the tokens of a group use. A frozen dataclass of its settings."""

    @property
    def needs_capacity(self) -> bool:
        """Whether the capacity makes the choice, and so holds where nothing is to be dropped."""
        ...

    def route(self, tokens: Tokens, capacity: Capacity | None) -> tuple[Assignment, RoutingStats]:
        """Assigns the unmasked tokens of each group, and says what that did.

        `capacity`: slots per expert and group; None: as many as are wanted (dropless).
        """
        ...
