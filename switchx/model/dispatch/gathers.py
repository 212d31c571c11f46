"""Gathers of rows whose transposes are gathers too."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

# Q numbers the slots of all experts, E * C of them. Each slot holds at most one choice and each
# choice at most one slot, so the transpose of either gather is the other gather: JAX's own
# transpose would be a scatter-add, which is slow everywhere and needs the indices' uniqueness.


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


gather_tokens.defvjp(
    lambda x, choice, flat: (gather_tokens(x, choice, flat), flat),
    lambda flat, dy: (_sum_choices(lambda j: _rows(dy, flat[..., j]), flat), None, None),
)

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


def _gather_outputs_bwd(
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


gather_outputs.defvjp(lambda *of: (gather_outputs(*of), of), _gather_outputs_bwd)


def _sum_choices(of: Callable[[int], jax.Array], per_choice_GSJ: jax.Array) -> jax.Array:
    """The sum of `of(j)` over the J choices."""
    return functools.reduce(jnp.add, map(of, range(per_choice_GSJ.shape[-1])))
