"""Which slot each choice has, and which choice each slot, of all groups of a device."""

import itertools

import jax
import jax.numpy as jnp

from switchx.model.routing import Assignment, Slots


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


def by_width(x_PQ: jax.Array, slots: Slots, groups: int) -> list[jax.Array]:
    """An array over a device's slots, taken apart by expert: [P, E, R, ...] for each width.

    Args:
      groups: of a device.
    """
    lines = slots.of_groups(groups).by_width
    ends = itertools.accumulate(E * R for E, R in lines[:-1])
    own = jnp.split(x_PQ, [*ends], axis=1) if len(lines) > 1 else [x_PQ]
    P, _, *each = x_PQ.shape
    return [x.reshape(P, E, R, *each) for x, (E, R) in zip(own, lines, strict=True)]


def filled_slots(assignment: Assignment, slots: Slots, P: int) -> list[jax.Array]:
    """Which slots hold a token: bool, of each width [P, E, R]."""
    flat_PTJ, choice_PQ = indices(assignment, slots, P)
    G = assignment.slot_GSJ.shape[0]
    return by_width(choice_PQ < flat_PTJ[0].size, slots, G // P)
