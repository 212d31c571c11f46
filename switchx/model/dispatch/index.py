"""Dispatch by index: rows are gathered, forward and backward, with no FLOPs at all."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from switchx.model.dispatch.gathers import gather_outputs, gather_tokens
from switchx.model.dispatch.places import by_width, indices
from switchx.model.dispatch.slots import SlotDispatcher
from switchx.model.routing import Assignment, Slots


class IndexDispatcher(SlotDispatcher):
    """Each row is moved once. In empty slots lies some token's."""

    def dispatch(
        self, x_GSD: jax.Array, assignment: Assignment, slots: Slots, P: int
    ) -> list[jax.Array]:
        flat_PTJ, choice_PQ = indices(assignment, slots, P)
        G, _, D = x_GSD.shape
        y_PQD = gather_tokens(x_GSD.reshape(P, -1, D), choice_PQ, flat_PTJ)
        return by_width(y_PQD, slots, G // P)

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
