"""Dispatch by index: rows are gathered, forward and backward, with no FLOPs at all."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from switchx.model.dispatch.gathers import gather_outputs, gather_tokens
from switchx.model.dispatch.slots import SlotDispatcher
from switchx.model.routing import Assignment, Slots


class IndexDispatcher(SlotDispatcher):
    """Each row is moved once. In empty slots lies some token's."""

    def dispatch(
        self, x_GSD: jax.Array, assignment: Assignment, slots: Slots, P: int
    ) -> list[jax.Array]:
        flat_PTJ, choice_PQ = indices(assignment, slots, P)
        D = x_GSD.shape[-1]
        y_PQD = gather_tokens(x_GSD.reshape(P, -1, D), choice_PQ, flat_PTJ)
        lines = slots.of_groups(x_GSD.shape[0] // P)
        ends = itertools.accumulate(E * R for E, R in lines.by_width[:-1])
        own = jnp.split(y_PQD, [*ends], axis=1) if len(lines.by_width) > 1 else [y_PQD]
        return [y.reshape(P, *each, D) for y, each in zip(own, lines.by_width, strict=True)]

    def combine(
        self, outputs: Sequence[jax.Array], assignment: Assignment, slots: Slots
    ) -> jax.Array:
        P, *_, D = outputs[0].shape
        G, S, J = assignment.gate_GSJ.shape
        flat_PTJ, choice_PQ = indices(assignment, slots, P)
        own = [out.reshape(P, -1, D) for out in outputs]
        out_PQD = jnp.concatenate(own, axis=1) if len(own) > 1 else own[0]
        gate_PTJ = assignment.gate_GSJ.reshape(P, -1, J)
        return gather_outputs(out_PQD, gate_PTJ, flat_PTJ, choice_PQ).reshape(G, S, D)


def indices(assignment: Assignment, slots: Slots, P: int) -> tuple[jax.Array, jax.Array]:
    """Of the T tokens and Q slots that each of P devices has in one line.

    Returns:
      flat_PTJ: the slot of each choice, Q if not kept. choice_PQ: the inverse, T*J if empty.
    """
    G, S, J = assignment.slot_GSJ.shape
    lines = slots.of_groups(G // P)
    Q, expert_GSJ = lines.total, assignment.expert_GSJ
    group_G11 = (jnp.arange(G, dtype=jnp.int32) % (G // P))[:, None, None]
    place_GSJ = group_G11 * slots.room(expert_GSJ) + assignment.slot_GSJ
    flat_GSJ = jnp.where(assignment.kept_GSJ, lines.numbered(expert_GSJ, place_GSJ), Q)
    flat_PTJ = flat_GSJ.reshape(P, -1, J)
    number_K = jnp.arange(G // P * S * J, dtype=jnp.int32)

    def invert(flat_TJ: jax.Array) -> jax.Array:
        empty_Q = jnp.full((Q,), number_K.size, jnp.int32)
        return empty_Q.at[flat_TJ.reshape(-1)].set(number_K, mode="drop")

    return flat_PTJ, jax.vmap(invert)(flat_PTJ)
