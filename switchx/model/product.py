"""The product of rows with a parameter; on a CPU its gradients in the form that is fast there."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from switchx.model import bilinear
from switchx.sharding import platform


def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x kernel: [..., R, D] and [..., D, F] to [..., R, F], whose leading dimensions are alike."""
    if platform() != "cpu":
        return jnp.matmul(x, kernel)
    return _on_cpu(precision_in_force(), x, kernel)


def precision_in_force() -> str | None:
    """That of `jax.default_matmul_precision`, for gradients, which are traced later."""
    return jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _on_cpu(precision: str | None, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jnp.matmul(x, kernel, precision=precision)


def _jvp(
    precision: str | None, primals: Sequence[jax.Array], tangents: Sequence[bilinear.Tangent]
) -> tuple[jax.Array, jax.Array]:
    multiply = functools.partial(jnp.matmul, precision=precision)
    # The product itself, which remat's policies know, where they don't look into a call.
    return multiply(*primals), bilinear.tangent(
        multiply,
        lambda dy, kernel: multiply(dy, kernel.swapaxes(-1, -2)),
        functools.partial(_of_kernel, precision),
        primals,
        tangents,
    )


_on_cpu.defjvp(_jvp, symbolic_zeros=True)


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
