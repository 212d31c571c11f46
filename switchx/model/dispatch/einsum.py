"""Dispatch by one-hot products, as Mesh-TensorFlow does it: 2 G S E C D FLOPs each way."""

import jax
import jax.numpy as jnp

from switchx.model.dispatch.slots import SlotDispatcher
from switchx.model.routing import Assignment


class EinsumDispatcher(SlotDispatcher):
    """Suits TPUs with groups of a few hundred tokens."""

    def dispatch(
        self, x_GSD: jax.Array, assignment: Assignment, num_experts: int, capacity: int
    ) -> jax.Array:
        where_GSEC = _one_hot(assignment, num_experts, capacity, assignment.kept_GSJ, x_GSD.dtype)
        return jnp.einsum("gsec,gsd->gecd", where_GSEC, x_GSD)

    def combine(self, expert_out_GECD: jax.Array, assignment: Assignment) -> jax.Array:
        _, E, C, _ = expert_out_GECD.shape
        where_GSEC = _one_hot(assignment, E, C, assignment.gate_GSJ, expert_out_GECD.dtype)
        return jnp.einsum("gsec,gecd->gsd", where_GSEC, expert_out_GECD)


def _one_hot(
    assignment: Assignment, E: int, C: int, value_GSJ: jax.Array, dtype: jnp.dtype
) -> jax.Array:
    """[G, S, E, C] with each choice's value at its expert and slot; J is summed out."""
    expert_GSJE = jax.nn.one_hot(assignment.expert_GSJ, E, dtype=dtype)
    slot_GSJC = jax.nn.one_hot(assignment.slot_GSJ, C, dtype=dtype)
    return jnp.einsum("gsje,gsjc,gsj->gsec", expert_GSJE, slot_GSJC, value_GSJ.astype(dtype))
