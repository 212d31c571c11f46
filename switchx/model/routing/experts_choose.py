"""Experts choose (Zhou et al. 2022): each takes the tokens likeliest for it."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from switchx.model.checks import only
from switchx.model.routing.assignment import Assignment, Settings, Tokens
from switchx.model.routing.capacity import Capacity, room
from switchx.model.routing.stats import RoutingStats


@dataclasses.dataclass(frozen=True)
class ExpertsChoose:
    """Each expert takes its capacity of tokens, so a token has any number of experts, or none.

    For the encoder only: who is chosen depends on later tokens.
    """

    balance_weights: tuple[float, ...] | None = None

    needs_capacity: ClassVar[bool] = True

    @classmethod
    def of(cls, settings: Settings) -> "ExpertsChoose":
        """It has no settings of its own."""
        neutral = {"top_k": 1, "reroute_rounds": 0, "priority": "sequence"}
        neutral |= {"balance_bias": 0.0, "balance_quantile": 0.0, "balance_loss_over": "group"}
        given = "encoder_routing='experts_choose'"
        only(settings, given, neutral, "whose encoder tokens make no choice")
        return cls(settings.balance_weights)

    def route(self, tokens: Tokens, capacity: Capacity | None) -> tuple[Assignment, RoutingStats]:
        """See Policy."""
        assert capacity is not None, "experts choose as many tokens as they have slots"
        mask_GS = tokens.mask_GS
        assignment = self._assign(tokens.probs(), mask_GS, capacity)
        found_GS1 = assignment.kept_GSJ.any(axis=-1, keepdims=True)
        count_GE = jnp.sum(assignment.kept_GSJ, axis=1)
        stats = tokens.stats(count_GE, mask_GS[..., None], found_GS1, self.balance_weights)
        return assignment, stats

    @staticmethod
    def _assign(probs_GSE: jax.Array, mask_GS: jax.Array, capacity: Capacity) -> Assignment:
        """Eq. 2-3. Choice j of every token is expert j; ties go to the earlier token.

        The first sort says who is n-th with an expert; the second inverts it and so says a
        token's rank with each expert, which is its slot there.
        """
        key_GSE = jnp.where(mask_GS[..., None], -jax.lax.stop_gradient(probs_GSE), jnp.inf)
        token_GCE = jnp.argsort(key_GSE, axis=1, stable=True)
        rank_GSE = jnp.argsort(token_GCE, axis=1).astype(jnp.int32)
        E = probs_GSE.shape[-1]
        kept_GSE = (rank_GSE < room(capacity, np.arange(E))) & mask_GS[..., None]
        expert_GSE = jnp.broadcast_to(jnp.arange(E, dtype=jnp.int32), rank_GSE.shape)
        return Assignment(expert_GSE, rank_GSE, jnp.where(kept_GSE, probs_GSE, 0.0), kept_GSE)
