"""Dispatch by one-hot products, as Mesh-TensorFlow does it: 2 G S E C D FLOPs each way."""

import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp

from switchx.model.dispatch.slots import SlotDispatcher
from switchx.model.routing import Assignment, Slots


class EinsumDispatcher(SlotDispatcher):
    """Suits TPUs with groups of a few hundred tokens."""

    def dispatch(self, x_GSD: jax.Array, assignment: Assignment, slots: Slots) -> list[jax.Array]:
        places = _one_hot(assignment, slots, assignment.kept_GSJ, x_GSD.dtype)
        return [jnp.einsum("gsec,gsd->gecd", where_GSEC, x_GSD) for where_GSEC in places]

    def combine(
        self, outputs: Sequence[jax.Array], assignment: Assignment, slots: Slots
    ) -> jax.Array:
        places = _one_hot(assignment, slots, assignment.gate_GSJ, outputs[0].dtype)
        combined = (
            jnp.einsum("gsec,gecd->gsd", where_GSEC, out_GECD)
            for where_GSEC, out_GECD in zip(places, outputs, strict=True)
        )
        return functools.reduce(jnp.add, combined)


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
