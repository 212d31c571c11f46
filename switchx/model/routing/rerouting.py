"""No-Token-Left-Behind (appendix B): tokens that found no room try their next choice."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from switchx.errors import UserError
from switchx.model.checks import only
from switchx.model.routing.assignment import Assignment, Settings, Tokens
from switchx.model.routing.capacity import Capacity, room
from switchx.model.routing.choices import one_hot, order_of, places, top_choices
from switchx.model.routing.stats import RoutingStats
from switchx.model.routing.tokens_choose import TokensChoose


@dataclasses.dataclass(frozen=True)
class Rerouting:
    """One expert per token, its next one where that is full, `reroute_rounds` times over.

    For the encoder only: the room that is left depends on later tokens.
    """

    reroute_rounds: int
    priority: str = "sequence"
    balance_weights: tuple[float, ...] | None = None

    needs_capacity: ClassVar[bool] = False

    @classmethod
    def of(cls, settings: Settings) -> "Rerouting":
        """From the fields of SwitchConfig of the same names."""
        given = f"reroute_rounds={settings.reroute_rounds}"
        only(settings, given, {"top_k": 1}, "which is for tokens of a single choice")
        if settings.reroute_rounds >= settings.num_experts:
            raise UserError(
                f"SwitchConfig.{given} must be below NUM_EXPERTS={settings.num_experts}: "
                "a token has no more experts to try."
            )
        return cls(settings.reroute_rounds, settings.priority, settings.balance_weights)

    def route(self, tokens: Tokens, capacity: Capacity | None) -> tuple[Assignment, RoutingStats]:
        """See Policy."""
        if capacity is None:  # none is full
            return TokensChoose(balance_weights=self.balance_weights).route(tokens, None)
        probs_GSE, mask_GS = tokens.probs(), tokens.mask_GS
        E, rounds = probs_GSE.shape[-1], self.reroute_rounds + 1
        choice_GSJ, prob_GSJ = top_choices(tokens.score_GSE, probs_GSE, rounds)
        order_GS = order_of(self.priority, choice_GSJ, probs_GSE)
        expert_GS1, gate_GS1 = choice_GSJ[..., :1], jnp.zeros_like(prob_GSJ[..., :1])
        slot_GS1, kept_GS1 = jnp.zeros_like(expert_GS1), jnp.zeros_like(mask_GS[..., None])
        load_GE = jnp.zeros((probs_GSE.shape[0], E), jnp.int32)
        # A round is a queue of those that have no slot yet, behind the slots that earlier rounds
        # took: nobody loses a slot to a token that comes in a later round.
        for j in range(rounds):
            next_GS1, prob_GS1 = choice_GSJ[..., j : j + 1], prob_GSJ[..., j : j + 1]
            left_GS1 = mask_GS[..., None] & ~kept_GS1
            taken_GS = jnp.take_along_axis(load_GE, next_GS1[..., 0], axis=1)
            place_GS1 = places(next_GS1, left_GS1, E, order_GS) + taken_GS[..., None]
            placed_GS1 = left_GS1 & (place_GS1 < room(capacity, next_GS1))
            expert_GS1 = jnp.where(placed_GS1, next_GS1, expert_GS1)
            slot_GS1 = jnp.where(placed_GS1, place_GS1, slot_GS1)
            gate_GS1 = jnp.where(placed_GS1, prob_GS1, gate_GS1)
            kept_GS1 = kept_GS1 | placed_GS1
            load_GE += jnp.sum(one_hot(next_GS1, E) * placed_GS1[..., None], axis=(1, 2))
        # The balance loss is about what the router asked for: first choices.
        asked_GE = jnp.sum(one_hot(choice_GSJ[..., :1], E) * mask_GS[..., None, None], axis=(1, 2))
        stats = tokens.stats(asked_GE, mask_GS[..., None], kept_GS1, self.balance_weights)
        return Assignment(expert_GS1, slot_GS1, gate_GS1, kept_GS1), stats
