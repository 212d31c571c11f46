"""Derivatives of a product whose two gradients are products in forms of their own."""

from collections.abc import Callable, Sequence

import jax
from jax.custom_derivatives import SymbolicZero, linear_call

# What JAX gives for the derivative of an input, and a zero for what has none.
Tangent = jax.Array | SymbolicZero


def tangent(
    multiply: Callable[..., jax.Array],
    of_x: Callable[..., jax.Array],
    of_kernel: Callable[..., jax.Array],
    primals: Sequence[jax.Array],
    tangents: Sequence[Tangent],
) -> jax.Array:
    """That of multiply(x, kernel, *rest), linear in the first two: a rule of `jax.custom_jvp`.

    What is frozen has no tangent, and so no gradient, nor is anything kept for one.

    `jax.custom_vjp` won't do: a call that is traced once (`jax.checkpoint`'s) and differentiated
    for x in one place, for the kernel in another, has one memory of what it keeps (JAX 0.10.2).
    The gradients of the one were computed of what is kept for the other, and came out as zeros.

    Args:
      of_x: (dy, kernel, *rest) to x's gradient.
      of_kernel: (x, dy, *rest) to the kernel's.
      primals: x, kernel, and the rest, which have no derivative.
    """
    x, kernel, *rest = primals
    dx, dkernel, *_ = tangents
    terms = []
    if not isinstance(dx, SymbolicZero):
        terms.append(
            linear_call(
                lambda kept, dx: multiply(dx, *kept),
                lambda kept, dy: of_x(dy, *kept),
                (kernel, *rest),
                dx,
            )
        )
    if not isinstance(dkernel, SymbolicZero):
        terms.append(
            linear_call(
                lambda kept, dkernel: multiply(kept[0], dkernel, *kept[1:]),
                lambda kept, dy: of_kernel(kept[0], dy, *kept[1:]),
                (x, *rest),
                dkernel,
            )
        )
    return sum(terms[1:], terms[0])
