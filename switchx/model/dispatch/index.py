"""Dispatch by index: rows are gathered, forward and backward, with no FLOPs at all."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from switchx.model.dispatch.gathers import gather_outputs, gather_tokens
from switchx.model.dispatch.slots import SlotDispatcher
from switchx.model.routing import Assignment, Slots


class IndexDispatcher(SlotDispatcher):
    """Each row is moved once."""

    def dispatch(self, x_GSD: jax.Array, assignment: Assignment, slots: Slots) -> list[jax.Array]:
        flat_GSJ, choice_GQ = _indices(assignment, slots)
        y_GQD = gather_tokens(x_GSD, choice_GQ, flat_GSJ)
        ends = itertools.accumulate(E * C for E, C in slots.by_width[:-1])
        own = jnp.split(y_GQD, [*ends], axis=1) if len(slots.by_width) > 1 else [y_GQD]
        G = x_GSD.shape[0]
        return [y.reshape(G, *each, -1) for y, each in zip(own, slots.by_width, strict=True)]

    def combine(
        self, outputs: Sequence[jax.Array], assignment: Assignment, slots: Slots
    ) -> jax.Array:
        flat_GSJ, choice_GQ = _indices(assignment, slots)
        own = [out.reshape(out.shape[0], -1, out.shape[-1]) for out in outputs]
        out_GQD = jnp.concatenate(own, axis=1) if len(own) > 1 else own[0]
        return gather_outputs(out_GQD, assignment.gate_GSJ, flat_GSJ, choice_GQ)


def _indices(assignment: Assignment, slots: Slots) -> tuple[jax.Array, jax.Array]:
    """flat_GSJ: the slot of each choice, Q if not kept. choice_GQ: the inverse, S*J if empty."""
    _, S, J = assignment.slot_GSJ.shape
    Q = slots.total
    flat_GSJ = slots.numbered(assignment.expert_GSJ, assignment.slot_GSJ)
    flat_GSJ = jnp.where(assignment.kept_GSJ, flat_GSJ, Q)
    number_SJ = jnp.arange(S * J, dtype=jnp.int32)

    def invert(flat_SJ: jax.Array) -> jax.Array:
        empty_Q = jnp.full((Q,), S * J, jnp.int32)
        return empty_Q.at[flat_SJ.reshape(-1)].set(number_SJ, mode="drop")

    return flat_GSJ, jax.vmap(invert)(flat_GSJ)
