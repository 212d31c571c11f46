"""The product of rows sorted by expert with each expert's own matrix."""

import jax
import jax.numpy as jnp

# Rows of one product on a CPU. Smaller ones waste less at the end of an expert's rows, larger
# ones run nearer to the machine's rate.
_BLOCK = 128


def grouped_product(x_RD: jax.Array, kernel_EDF: jax.Array, size_E: jax.Array) -> jax.Array:
    """[R, F]: the first size_E[0] rows times kernel 0, the next size_E[1] times kernel 1, ...

    jax.lax.ragged_dot where the platform has a program for it. On a CPU it multiplies every row
    with every kernel, E times the work, so there the rows go block by block.

    Args:
      size_E: int32; rows beyond their sum come out as anything finite.
    """
    return jax.lax.platform_dependent(
        x_RD, kernel_EDF, size_E, cpu=_blocked, default=jax.lax.ragged_dot
    )


@jax.custom_vjp
def _blocked(x_RD: jax.Array, kernel_EDF: jax.Array, size_E: jax.Array) -> jax.Array:
    R, F = x_RD.shape[0], kernel_EDF.shape[-1]
    x_RD = _pad(x_RD)

    def expert(y_RF: jax.Array, per_expert: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        kernel_DF, start, size = per_expert

        # A block may run on into the next expert's rows, which that expert then overwrites.
        def block(i: jax.Array, y_RF: jax.Array) -> jax.Array:
            at = start + i * _BLOCK
            x_bD = jax.lax.dynamic_slice_in_dim(x_RD, at, _BLOCK)
            return jax.lax.dynamic_update_slice_in_dim(y_RF, x_bD @ kernel_DF, at, axis=0)

        return jax.lax.fori_loop(0, _num_blocks(size), block, y_RF), None

    y_RF = jnp.zeros((x_RD.shape[0], F), x_RD.dtype)
    y_RF, _ = jax.lax.scan(expert, y_RF, (kernel_EDF, _starts(size_E), size_E))
    return y_RF[:R]


def _fwd(x_RD: jax.Array, kernel_EDF: jax.Array, size_E: jax.Array) -> tuple[jax.Array, tuple]:
    return _blocked(x_RD, kernel_EDF, size_E), (x_RD, kernel_EDF, size_E)


def _bwd(residuals: tuple, dy_RF: jax.Array) -> tuple[jax.Array, jax.Array, None]:
    x_RD, kernel_EDF, size_E = residuals
    dx_RD = _blocked(dy_RF, kernel_EDF.swapaxes(1, 2), size_E)
    return dx_RD, _outer(x_RD, dy_RF, size_E), None


_blocked.defvjp(_fwd, _bwd)


def _outer(x_RD: jax.Array, dy_RF: jax.Array, size_E: jax.Array) -> jax.Array:
    """[E, D, F]: x^T dy over each expert's rows."""
    D, F = x_RD.shape[1], dy_RF.shape[1]
    x_RD, dy_RF = _pad(x_RD), _pad(dy_RF)

    def expert(_: None, per_expert: tuple[jax.Array, ...]) -> tuple[None, jax.Array]:
        start, size = per_expert

        def block(i: jax.Array, sum_DF: jax.Array) -> jax.Array:
            mine_b1 = (jnp.arange(_BLOCK) + i * _BLOCK < size)[:, None]
            x_bD = jax.lax.dynamic_slice_in_dim(x_RD, start + i * _BLOCK, _BLOCK)
            dy_bF = jax.lax.dynamic_slice_in_dim(dy_RF, start + i * _BLOCK, _BLOCK)
            return sum_DF + jnp.where(mine_b1, x_bD, 0).T @ dy_bF

        zeros_DF = jnp.zeros((D, F), x_RD.dtype)
        return None, jax.lax.fori_loop(0, _num_blocks(size), block, zeros_DF)

    return jax.lax.scan(expert, None, (_starts(size_E), size_E))[1]


def _pad(x_RD: jax.Array) -> jax.Array:
    """Room for the last block to run on into."""
    return jnp.pad(x_RD, ((0, _BLOCK), (0, 0)))


def _starts(size_E: jax.Array) -> jax.Array:
    return jnp.cumsum(size_E) - size_E


def _num_blocks(size: jax.Array) -> jax.Array:
    return (size + _BLOCK - 1) // _BLOCK
