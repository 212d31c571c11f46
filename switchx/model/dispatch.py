"""Dispatchers: tokens to the slots of their experts, and back. One interface, equal results."""

import functools
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp

from switchx.model.routing import Assignment


class Dispatcher(Protocol):
    """Moves tokens of an assignment; slots that no token takes hold zeros."""

    def dispatch(
        self, x_GSD: jax.Array, assignment: Assignment, num_experts: int, capacity: int
    ) -> jax.Array:
        """Returns expert_in [G, E, C, D], in the dtype of `x`."""
        ...

    def combine(self, expert_out_GECD: jax.Array, assignment: Assignment) -> jax.Array:
        """Returns [G, S, D]: each token's kept outputs times their gates; zero where none is."""
        ...


class EinsumDispatcher:
    """One-hot products, as Mesh-TensorFlow does it: costs 2 G S E C D FLOPs each way."""

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


class IndexDispatcher:
    """Gathers rows by index, forward and backward: no FLOPs, each row moved once."""

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


# Q numbers the slots of all experts, E * C of them. Each slot holds at most one choice and each
# choice at most one slot, so the transpose of either gather is the other gather: JAX's own
# transpose would be a scatter-add, which is slow everywhere and needs the indices' uniqueness.


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


def rows(x_ND: jax.Array, index: jax.Array) -> jax.Array:
    """x[index], zeros where the index is out of bounds: [*index.shape, D]."""
    return jnp.take(x_ND, index, axis=0, mode="fill", fill_value=0)


def _rows(x_GND: jax.Array, index_GM: jax.Array) -> jax.Array:
    """`rows` of each group: [G, M, D]."""
    return jax.vmap(rows)(x_GND, index_GM)


@jax.custom_vjp
def gather_tokens(x_GSD: jax.Array, choice_GQ: jax.Array, flat_GSJ: jax.Array) -> jax.Array:
    """[G, Q, D]: in each slot the token of the choice that took it, `choice // J`.

    Args:
      choice_GQ: the choice in each slot, S * J where there is none.
      flat_GSJ: the slot of each choice, Q where it has none.
    """
    return _rows(x_GSD, choice_GQ // flat_GSJ.shape[-1])


def gather_tokens_fwd(
    x_GSD: jax.Array, choice_GQ: jax.Array, flat_GSJ: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return gather_tokens(x_GSD, choice_GQ, flat_GSJ), flat_GSJ


def gather_tokens_bwd(flat_GSJ: jax.Array, dy_GQD: jax.Array) -> tuple[jax.Array, None, None]:
    return _sum_choices(lambda j: _rows(dy_GQD, flat_GSJ[..., j]), flat_GSJ), None, None


gather_tokens.defvjp(gather_tokens_fwd, gather_tokens_bwd)

Residuals = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


@jax.custom_vjp
def gather_outputs(
    out_GQD: jax.Array, gate_GSJ: jax.Array, flat_GSJ: jax.Array, choice_GQ: jax.Array
) -> jax.Array:
    """[G, S, D]: of each token the outputs in its choices' slots, times their gates, summed."""
    gate_GSJ = gate_GSJ.astype(out_GQD.dtype)
    return _sum_choices(
        lambda j: gate_GSJ[..., j, None] * _rows(out_GQD, flat_GSJ[..., j]), gate_GSJ
    )


def gather_outputs_fwd(
    out_GQD: jax.Array, gate_GSJ: jax.Array, flat_GSJ: jax.Array, choice_GQ: jax.Array
) -> tuple[jax.Array, Residuals]:
    y_GSD = gather_outputs(out_GQD, gate_GSJ, flat_GSJ, choice_GQ)
    return y_GSD, (out_GQD, gate_GSJ, flat_GSJ, choice_GQ)


def gather_outputs_bwd(
    residuals: Residuals, dy_GSD: jax.Array
) -> tuple[jax.Array, jax.Array, None, None]:
    out_GQD, gate_GSJ, flat_GSJ, choice_GQ = residuals
    G, S, J = flat_GSJ.shape
    gate_of_slot_GQ1 = _rows(gate_GSJ.reshape(G, S * J, 1), choice_GQ)
    dout_GQD = gate_of_slot_GQ1.astype(out_GQD.dtype) * _rows(dy_GSD, choice_GQ // J)

    def dgate(j: int) -> jax.Array:
        out_GSD = _rows(out_GQD, flat_GSJ[..., j])
        # As a product: XLA's own sum over the last axis is twenty times slower on a CPU.
        return jnp.einsum("gsd,gsd->gs", out_GSD, dy_GSD, preferred_element_type=jnp.float32)

    return dout_GQD, jnp.stack([dgate(j) for j in range(J)], axis=-1), None, None


gather_outputs.defvjp(gather_outputs_fwd, gather_outputs_bwd)


def _sum_choices(of: Callable[[int], jax.Array], per_choice_GSJ: jax.Array) -> jax.Array:
    """The sum of `of(j)` over the J choices."""
    return functools.reduce(jnp.add, map(of, range(per_choice_GSJ.shape[-1])))


DISPATCHERS: dict[str, Dispatcher] = {"einsum": EinsumDispatcher(), "index": IndexDispatcher()}
