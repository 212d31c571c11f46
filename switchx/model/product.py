"""The product of rows with a parameter; on a CPU its gradients in the form that is fast there."""

import functools

import jax
import jax.numpy as jnp
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero

from switchx.sharding import platform

# What the kernel's gradient needs, the rows, and what theirs needs, the kernel.
Residuals = tuple[jax.Array | None, jax.Array | None]


def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x kernel: [..., R, D] and [..., D, F] to [..., R, F], whose leading dimensions are alike."""
    if platform() != "cpu":
        return jnp.matmul(x, kernel)
    return _on_cpu(precision_in_force(), x, kernel)


def precision_in_force() -> str | None:
    """That of `jax.default_matmul_precision`, for gradients, which are traced later."""
    return jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _on_cpu(precision: str | None, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jnp.matmul(x, kernel, precision=precision)


def _fwd(
    precision: str | None, x: CustomVJPPrimal, kernel: CustomVJPPrimal
) -> tuple[jax.Array, Residuals]:
    # The product itself, which remat's policies know, where they don't look into a call.
    y = jnp.matmul(x.value, kernel.value, precision=precision)
    # What is frozen has no gradient.
    of_kernel = x.value if kernel.perturbed else None
    return y, (of_kernel, kernel.value if x.perturbed else None)


def _bwd(
    precision: str | None, residuals: Residuals, dy: jax.Array | SymbolicZero
) -> tuple[jax.Array | None, jax.Array | None]:
    if isinstance(dy, SymbolicZero):
        return None, None
    x, kernel = residuals
    dx = None
    if kernel is not None:
        dx = jnp.matmul(dy, kernel.swapaxes(-1, -2), precision=precision)
    return dx, None if x is None else _of_kernel(precision, x, dy)


def _of_kernel(precision: str | None, x: jax.Array, dy: jax.Array) -> jax.Array:
    """x^T dy."""
    # XLA's product that reads rows by columns takes up to 1.5 times as long as turning them first.
    # Whichever way there is less to turn:
    kernel_size = x.size // x.shape[-2] * dy.shape[-1]
    if dy.size + kernel_size < x.size:
        return _turned(jnp.matmul(_turned(dy), x, precision=precision))
    return jax.lax.optimization_barrier(jnp.matmul(_turned(x), dy, precision=precision))


def _turned(x: jax.Array) -> jax.Array:
    """The last two dimensions exchanged, in memory; barriers keep products from taking that in."""
    return jax.lax.optimization_barrier(jax.lax.optimization_barrier(x).swapaxes(-1, -2))


_on_cpu.defvjp(_fwd, _bwd, symbolic_zeros=True)
