"""Rows sorted by expert, each times its own expert's kernel: as many as chose it."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

# Rows that are multiplied at a time on a TPU. Fewer waste less where an expert's rows end, more
# run nearer to the rate of the matrix unit.
_TPU_BLOCK = 512


def sorted_product(x_RD: jax.Array, kernel_EDF: jax.Array, size_E: jax.Array) -> jax.Array:
    """[R, F]: the first size_E[0] rows times kernel 0, the next size_E[1] times kernel 1, ...

    jax.lax.ragged_dot on a GPU. XLA's program of it for CPUs multiplies every row with every
    kernel, and the one for TPUs works on rows beyond the last too (53 times the FLOPs on 16
    devices, whose room for rows is mostly empty); so there the rows go block by block.

    Args:
      size_E: int32; rows beyond their sum come out as anything finite.
    """
    # The one in force (`jax.default_matmul_precision`), for gradients that are traced later.
    precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    cpu_block = _cpu_block(x_RD.shape[0] // kernel_EDF.shape[0])
    return jax.lax.platform_dependent(
        x_RD,
        kernel_EDF,
        size_E,
        cpu=functools.partial(_in_blocks, _Blocks(cpu_block, precision)),
        tpu=functools.partial(_in_blocks, _Blocks(_TPU_BLOCK, precision)),
        default=jax.lax.ragged_dot,
    )


def _cpu_block(share: int) -> int:
    """Rows at a time for experts of `share` rows each: half of it, from 32 to 128 (measured)."""
    return next((rows for rows in (128, 64) if share >= 2 * rows), 32)


@dataclasses.dataclass(frozen=True)
class _Blocks:
    """Rows of a block, and the products' precision in both directions."""

    rows: int
    precision: str | None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _in_blocks(
    blocks: _Blocks, x_RD: jax.Array, kernel_EDF: jax.Array, size_E: jax.Array
) -> jax.Array:
    b, precision = blocks.rows, blocks.precision
    R, F = x_RD.shape[0], kernel_EDF.shape[-1]
    x_RD = _pad(b, x_RD)

    def expert(y_RF: jax.Array, per_expert: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        kernel_DF, start, size = per_expert

        # A block may run on into the next expert's rows, which that expert then overwrites.
        def block(i: jax.Array, y_RF: jax.Array) -> jax.Array:
            x_bD = jax.lax.dynamic_slice_in_dim(x_RD, start + i * b, b)
            y_bF = jnp.matmul(x_bD, kernel_DF, precision=precision)
            return jax.lax.dynamic_update_slice_in_dim(y_RF, y_bF, start + i * b, axis=0)

        return jax.lax.fori_loop(0, -(-size // b), block, y_RF), None

    y_RF = jnp.zeros((x_RD.shape[0], F), x_RD.dtype)
    y_RF, _ = jax.lax.scan(expert, y_RF, (kernel_EDF, _starts(size_E), size_E))
    return y_RF[:R]


def _blocks_fwd(blocks: _Blocks, x: Any, kernel: Any, size: Any) -> tuple[jax.Array, tuple]:
    """Keeps what the gradients that are asked for need: frozen kernels have none."""
    y_RF = _in_blocks(blocks, x.value, kernel.value, size.value)
    kept_x_RD = x.value if kernel.perturbed else None
    kept_kernel_EDF = kernel.value if x.perturbed else None
    return y_RF, (kept_x_RD, kept_kernel_EDF, size.value)


def _blocks_bwd(
    blocks: _Blocks, residuals: Any, dy_RF: jax.Array
) -> tuple[jax.Array | None, jax.Array | None, None]:
    x_RD, kernel_EDF, size_E = residuals
    dx_RD, dkernel_EDF = None, None
    if kernel_EDF is not None:
        dx_RD = _in_blocks(blocks, dy_RF, kernel_EDF.swapaxes(1, 2), size_E)
    if x_RD is not None:
        dkernel_EDF = _outer(blocks, x_RD, dy_RF, size_E)
    return dx_RD, dkernel_EDF, None


_in_blocks.defvjp(_blocks_fwd, _blocks_bwd, symbolic_zeros=True)


def _outer(blocks: _Blocks, x_RD: jax.Array, dy_RF: jax.Array, size_E: jax.Array) -> jax.Array:
    """[E, D, F]: x^T dy over each expert's rows, summed in float32."""
    b, dtype = blocks.rows, x_RD.dtype
    D, F = x_RD.shape[1], dy_RF.shape[1]
    x_RD, dy_RF = _pad(b, x_RD), _pad(b, dy_RF)

    def expert(_: None, per_expert: tuple[jax.Array, ...]) -> tuple[None, jax.Array]:
        start, size = per_expert

        def block(i: jax.Array, sum_DF: jax.Array) -> jax.Array:
            mine_b1 = (jnp.arange(b) + i * b < size)[:, None]
            x_bD = jax.lax.dynamic_slice_in_dim(x_RD, start + i * b, b)
            dy_bF = jax.lax.dynamic_slice_in_dim(dy_RF, start + i * b, b)
            return sum_DF + jnp.matmul(
                jnp.where(mine_b1, x_bD, 0).T,
                dy_bF,
                precision=blocks.precision,
                preferred_element_type=jnp.float32,
            )

        sum_DF = jax.lax.fori_loop(0, -(-size // b), block, jnp.zeros((D, F), jnp.float32))
        return None, sum_DF.astype(dtype)

    return jax.lax.scan(expert, None, (_starts(size_E), size_E))[1]


def _pad(b: int, x_RD: jax.Array) -> jax.Array:
    """Room for the last block to run on into."""
    return jnp.pad(x_RD, ((0, b), (0, 0)))


def _starts(size_E: jax.Array) -> jax.Array:
    return jnp.cumsum(size_E) - size_E
