"""Tokens choose: each its likeliest expert (Switch) or its `top_k` (the paper's MoE baseline)."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from switchx.errors import UserError
from switchx.model.checks import only
from switchx.model.noise import Noise
from switchx.model.routing.assignment import SECOND_SITE, Assignment, Settings, Tokens
from switchx.model.routing.capacity import Capacity, queues, room
from switchx.model.routing.choices import one_hot, order_of, places, top_choices
from switchx.model.routing.stats import RoutingStats

SECOND_POLICIES = ("always", "never", "threshold", "random")
PRIORITIES = ("sequence", "gate")


@dataclasses.dataclass(frozen=True)
class TokensChoose:
    """Top-k; where an expert is full, its later tokens are dropped. See SwitchConfig.

    Attributes:
      causal: no token depends on a later one, as the decoder must have it: slots go token by
        token in sequence order, whatever the priority.
    """

    top_k: int = 1
    second_policy: str = "always"
    second_threshold: float = 0.2
    priority: str = "sequence"
    causal: bool = False
    balance_weights: tuple[float, ...] | None = None

    needs_capacity: ClassVar[bool] = False

    @classmethod
    def of(cls, settings: Settings, causal: bool = False) -> "TokensChoose":
        """From the fields of SwitchConfig of the same names."""
        if settings.top_k > settings.num_experts:
            raise UserError(
                f"SwitchConfig.top_k={settings.top_k} needs at least as many experts, "
                f"but NUM_EXPERTS={settings.num_experts}."
            )
        if settings.top_k == 1:
            only(settings, "top_k=1", {"second_policy": "always"}, "which makes no second choice")
        return cls(
            settings.top_k,
            settings.second_policy,
            settings.second_threshold,
            settings.priority,
            causal,
            settings.balance_weights,
        )

    def route(self, tokens: Tokens, capacity: Capacity | None) -> tuple[Assignment, RoutingStats]:
        """See Policy."""
        probs_GSE, E = tokens.probs(), tokens.logits_GSE.shape[-1]
        expert_GSJ, gate_GSJ, wanted_GSJ = self._choose(tokens, probs_GSE)
        slot_GSJ, kept_GSJ = jnp.zeros_like(expert_GSJ), wanted_GSJ
        if capacity is not None:
            priority = "sequence" if self.causal else self.priority
            order_GS = order_of(priority, expert_GSJ, probs_GSE)
            queue_GSJ, number = queues(capacity, expert_GSJ, E)
            slot_GSJ = places(queue_GSJ, wanted_GSJ, number, order_GS, self.causal)
            kept_GSJ = wanted_GSJ & (slot_GSJ < room(capacity, expert_GSJ))
        gate_GSJ = jnp.where(kept_GSJ, gate_GSJ, 0.0)
        count_GE = jnp.sum(one_hot(expert_GSJ, E) * wanted_GSJ[..., None], axis=(1, 2))
        stats = tokens.stats(count_GE, wanted_GSJ, kept_GSJ, self.balance_weights)
        return Assignment(expert_GSJ, slot_GSJ, gate_GSJ, kept_GSJ), stats

    def _choose(
        self, tokens: Tokens, probs_GSE: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Each token's experts, their gates, and which of them are wanted; all [G, S, J].

        One choice keeps its probability as gate (Switch Transformers, eq. 2). Several are divided
        by their sum, and `second_policy` then decides on those after the first, as in
        Mesh-TensorFlow's top-2 gating.
        """
        expert_GSJ, gate_GSJ = top_choices(tokens.score_GSE, probs_GSE, self.top_k)
        wanted_GSJ = jnp.broadcast_to(tokens.mask_GS[..., None], expert_GSJ.shape)
        if self.top_k > 1:
            gate_GSJ = gate_GSJ / (jnp.sum(gate_GSJ, axis=-1, keepdims=True) + 1e-9)
            first_J = jnp.arange(self.top_k) == 0
            wanted_GSJ &= first_J | self._second_wanted(gate_GSJ, tokens.noise)
        return expert_GSJ, gate_GSJ, wanted_GSJ

    def _second_wanted(self, gate_GSJ: jax.Array, noise: Noise) -> jax.Array | bool:
        if self.second_policy == "always":
            return True
        if self.second_policy == "never":
            return False
        if self.second_policy == "threshold" or noise.silent:
            return gate_GSJ > self.second_threshold
        u_GSJ = noise.fold(SECOND_SITE).uniform(gate_GSJ.shape[1:], 0.0, 1.0)
        return u_GSJ * self.second_threshold < gate_GSJ
