"""Gathers of rows whose transposes are gathers too."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from switchx.model.remat import held

# Of each of P devices: Q numbers its slots, T its tokens. Each slot holds at most one choice and
# each choice at most one slot, so the transpose of either gather is the other gather: JAX's own
# transpose would be a scatter-add, which is slow everywhere and needs the indices' uniqueness.
# Rows that are not there are any row, and then times 0 only where they would count: to put zeros
# in their place is a pass over all of them.


def rows(x_ND: jax.Array, index: jax.Array) -> jax.Array:
    """x[index], zeros where the index is out of bounds: [*index.shape, D]."""
    return jnp.take(x_ND, index, axis=0, mode="fill", fill_value=0)


def _any_rows(x_PND: jax.Array, index_PM: jax.Array) -> jax.Array:
    """x[index] of each device, the last row where the index is beyond: [P, M, D]."""
    return jax.vmap(functools.partial(jnp.take, axis=0, mode="clip"))(x_PND, index_PM)


@jax.custom_vjp
def gather_tokens(x_PTD: jax.Array, choice_PQ: jax.Array, flat_PTJ: jax.Array) -> jax.Array:
    """[P, Q, D]: in each slot the token of the choice that took it, `choice // J`.

    Args:
      choice_PQ: the choice in each slot, T * J where there is none: there it is some token.
      flat_PTJ: the slot of each choice, Q where it has none.
    """
    return _any_rows(x_PTD, choice_PQ // flat_PTJ.shape[-1])


def _gather_tokens_bwd(flat_PTJ: jax.Array, dy_PQD: jax.Array) -> tuple[jax.Array, None, None]:
    kept_PTJ = flat_PTJ < dy_PQD.shape[1]

    def of_choice(j: int) -> jax.Array:
        return jnp.where(kept_PTJ[..., j, None], _any_rows(dy_PQD, flat_PTJ[..., j]), 0)

    return _sum_choices(of_choice, flat_PTJ.shape[-1]), None, None


gather_tokens.defvjp(
    lambda x, choice, flat: (gather_tokens(x, choice, flat), flat), _gather_tokens_bwd
)

Residuals = tuple[jax.Array | list[jax.Array], jax.Array, jax.Array, jax.Array]


@jax.custom_vjp
def gather_outputs(
    out_PQD: jax.Array, gate_PTJ: jax.Array, flat_PTJ: jax.Array, choice_PQ: jax.Array
) -> jax.Array:
    """[P, T, D]: of each token the outputs in its choices' slots, times their gates, summed.

    `gate_PTJ`: 0 where a choice has no slot.
    """
    return _gather_outputs_fwd(out_PQD, gate_PTJ, flat_PTJ, choice_PQ)[0]


def _gather_outputs_fwd(
    out_PQD: jax.Array, gate_PTJ: jax.Array, flat_PTJ: jax.Array, choice_PQ: jax.Array
) -> tuple[jax.Array, Residuals]:
    J, dtype = flat_PTJ.shape[-1], out_PQD.dtype
    per_choice = [_any_rows(out_PQD, flat_PTJ[..., j]) for j in range(J)]
    y_PTD = _sum_choices(lambda j: gate_PTJ[..., j, None].astype(dtype) * per_choice[j], J)
    # What is smaller is kept for the gates' gradients.
    kept = per_choice if flat_PTJ.size <= choice_PQ.size else out_PQD
    return y_PTD, (kept, gate_PTJ, flat_PTJ, choice_PQ)


def _gather_outputs_bwd(
    residuals: Residuals, dy_PTD: jax.Array
) -> tuple[jax.Array, jax.Array, None, None]:
    kept, gate_PTJ, flat_PTJ, choice_PQ = residuals
    dy_PTD = held(dy_PTD)  # or all of it is turned to float32 first, for the gates' gradients
    P, T, J = flat_PTJ.shape
    gate_of_slot_PQ1 = jax.vmap(rows)(gate_PTJ.reshape(P, T * J, 1), choice_PQ)
    dout_PQD = gate_of_slot_PQ1.astype(dy_PTD.dtype) * _any_rows(dy_PTD, choice_PQ // J)

    def dgate(j: int) -> jax.Array:
        out_PTD = kept[j] if isinstance(kept, list) else _any_rows(kept, flat_PTJ[..., j])
        # As a product: XLA's own sum over the last axis is twenty times slower on a CPU.
        return jnp.einsum("ptd,ptd->pt", out_PTD, dy_PTD, preferred_element_type=jnp.float32)

    dgate_PTJ = jnp.stack([dgate(j) for j in range(J)], axis=-1)
    return dout_PQD, jnp.where(flat_PTJ < choice_PQ.shape[1], dgate_PTJ, 0.0), None, None


gather_outputs.defvjp(_gather_outputs_fwd, _gather_outputs_bwd)


def _sum_choices(of: Callable[[int], jax.Array], J: int) -> jax.Array:
    """The sum of `of(j)` over the J choices."""
    return functools.reduce(jnp.add, map(of, range(J)))
