"""Dispatch by one-hot products, as Mesh-TensorFlow does it: 2 G S E C D FLOPs each way."""

import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp

from switchx.model.dispatch.slots import SlotDispatcher
from switchx.model.routing import Assignment, Slots


class EinsumDispatcher(SlotDispatcher):
    """Suits TPUs with groups of a few hundred tokens."""

    def dispatch(
        self, x_GSD: jax.Array, assignment: Assignment, slots: Slots, P: int
    ) -> list[jax.Array]:
        G, S, D = x_GSD.shape
        x_PGSD = x_GSD.reshape(P, G // P, S, D)
        inputs = []
        for where_GSEC in _one_hot(assignment, slots, assignment.kept_GSJ, x_GSD.dtype):
            where_PGSEC = where_GSEC.reshape(P, G // P, *where_GSEC.shape[1:])
            x_PEGCD = jnp.einsum("pgsec,pgsd->pegcd", where_PGSEC, x_PGSD)
            inputs.append(x_PEGCD.reshape(P, where_GSEC.shape[2], -1, D))
        return inputs

    def combine(
        self, outputs: Sequence[jax.Array], assignment: Assignment, slots: Slots
    ) -> jax.Array:
        P, *_, D = outputs[0].shape
        G, S, _ = assignment.gate_GSJ.shape
        combined = []
        places = _one_hot(assignment, slots, assignment.gate_GSJ, outputs[0].dtype)
        for where_GSEC, out_PERD in zip(places, outputs, strict=True):
            where_PGSEC = where_GSEC.reshape(P, G // P, *where_GSEC.shape[1:])
            out_PEGCD = out_PERD.reshape(P, out_PERD.shape[1], G // P, -1, D)
            combined.append(jnp.einsum("pgsec,pegcd->pgsd", where_PGSEC, out_PEGCD))
        return functools.reduce(jnp.add, combined).reshape(G, S, D)


def _one_hot(
    assignment: Assignment, slots: Slots, value_GSJ: jax.Array, dtype: jnp.dtype
) -> Iterator[jax.Array]:
    """Of each width [G, S, E, C], each choice's value at its expert and slot; J is summed out."""
    first = 0
    for E, C in slots.by_width:
        # Of an expert of another width all are zeros.
        own_GSJ = assignment.expert_GSJ - first if first else assignment.expert_GSJ
        expert_GSJE = jax.nn.one_hot(own_GSJ, E, dtype=dtype)
        slot_GSJC = jax.nn.one_hot(assignment.slot_GSJ, C, dtype=dtype)
        yield jnp.einsum("gsje,gsjc,gsj->gsec", expert_GSJE, slot_GSJC, value_GSJ.astype(dtype))
        first += E
