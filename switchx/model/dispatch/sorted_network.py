"""relu(x wi) wo of rows sorted by expert, without a pass over the interim rows of its own.

On TPUs the kernels apply ReLU to the rows that they write, and its gradient to those of the
interim rows: XLA takes neither into a kernel, and each would read and write all of them.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from switchx.model import bilinear
from switchx.model.dispatch.sorted_mosaic import MosaicTiles
from switchx.model.remat import kept


def relu_network(
    tiles: MosaicTiles, x_RD: jax.Array, wi_EDF: jax.Array, wo_EFD: jax.Array, size_E: jax.Array
) -> jax.Array:
    """[R, D]: of each row, by its expert's kernels; see sorted_product."""
    h_RF = kept(_into(tiles, x_RD, wi_EDF, size_E))
    return _outof(tiles, h_RF, wo_EFD, size_E)


# Together they have the derivatives of the whole; ReLU's, which is where its result is positive,
# is applied in the second, whose input that result is, and so not in the first.


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _into(tiles: MosaicTiles, x_RD: jax.Array, wi_EDF: jax.Array, size_E: jax.Array) -> jax.Array:
    """relu(x wi)."""
    return tiles.rows(x_RD, wi_EDF, size_E, transposed=False, rectified=True)


def _into_jvp(
    tiles: MosaicTiles, primals: Sequence[jax.Array], tangents: Sequence[bilinear.Tangent]
) -> tuple[jax.Array, jax.Array]:
    return _into(tiles, *primals), bilinear.tangent(
        functools.partial(tiles.rows, transposed=False),
        functools.partial(tiles.rows, transposed=True),
        tiles.outer,
        primals,
        tangents,
    )


_into.defjvp(_into_jvp, symbolic_zeros=True)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _outof(tiles: MosaicTiles, h_RF: jax.Array, wo_EFD: jax.Array, size_E: jax.Array) -> jax.Array:
    """h wo."""
    return tiles.rows(h_RF, wo_EFD, size_E, transposed=False)


def _outof_jvp(
    tiles: MosaicTiles, primals: Sequence[jax.Array], tangents: Sequence[bilinear.Tangent]
) -> tuple[jax.Array, jax.Array]:
    h_RF, wo_EFD, size_E = primals

    def multiply(dh_RF: jax.Array, wo: jax.Array, size_E: jax.Array, h_RF: jax.Array) -> jax.Array:
        return tiles.rows(jnp.where(h_RF > 0, dh_RF, 0), wo, size_E, transposed=False)

    return _outof(tiles, *primals), bilinear.tangent(
        multiply,
        lambda dy, wo, size_E, h: tiles.rows(dy, wo, size_E, transposed=True, mask_RN=h),
        lambda h, dy, size_E, _: tiles.outer(h, dy, size_E),
        (h_RF, wo_EFD, size_E, h_RF),
        tangents,
    )


_outof.defjvp(_outof_jvp, symbolic_zeros=True)
