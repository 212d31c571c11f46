"""Dispatch by index: rows are gathered, forward and backward, with no FLOPs at all."""

import jax
import jax.numpy as jnp

from switchx.model.dispatch.gathers import gather_outputs, gather_tokens
from switchx.model.dispatch.slots import SlotDispatcher
from switchx.model.routing import Assignment


class IndexDispatcher(SlotDispatcher):
    """Each row is moved once."""

    def dispatch(
        self, x_GSD: jax.Array, assignment: Assignment, num_experts: int, capacity: int
    ) -> jax.Array:
        flat_GSJ, choice_GQ = _indices(assignment, num_experts, capacity)
        y_GQD = gather_tokens(x_GSD, choice_GQ, flat_GSJ)
        return y_GQD.reshape(x_GSD.shape[0], num_experts, capacity, -1)

    def combine(self, expert_out_GECD: jax.Array, assignment: Assignment) -> jax.Array:
        G, E, C, D = expert_out_GECD.shape
        flat_GSJ, choice_GQ = _indices(assignment, E, C)
        out_GQD = expert_out_GECD.reshape(G, E * C, D)
        return gather_outputs(out_GQD, assignment.gate_GSJ, flat_GSJ, choice_GQ)


def _indices(assignment: Assignment, E: int, C: int) -> tuple[jax.Array, jax.Array]:
    """flat_GSJ: the slot of each choice, E*C if not kept. choice_GQ: the inverse, S*J if empty."""
    _, S, J = assignment.slot_GSJ.shape
    flat_GSJ = assignment.expert_GSJ * C + assignment.slot_GSJ
    flat_GSJ = jnp.where(assignment.kept_GSJ, flat_GSJ, E * C)
    number_SJ = jnp.arange(S * J, dtype=jnp.int32)

    def invert(flat_SJ: jax.Array) -> jax.Array:
        empty_Q = jnp.full((E * C,), S * J, jnp.int32)
        return empty_Q.at[flat_SJ.reshape(-1)].set(number_SJ, mode="drop")

    return flat_GSJ, jax.vmap(invert)(flat_GSJ)
