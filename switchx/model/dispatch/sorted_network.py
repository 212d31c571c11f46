"""Products of sorted rows by the kernels for TPUs, and relu(x wi) wo of two of them.

The kernels apply ReLU to the rows that they write, and its gradient to those of the interim rows:
XLA takes neither into a kernel, and each would read and write all of them.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero, linear_call

from switchx.model import bilinear
from switchx.model.dispatch.sorted_mosaic import MosaicTiles
from switchx.model.dispatch.stacked import Stacked
from switchx.model.remat import kept


def relu_network(
    tiles: MosaicTiles,
    x_RD: jax.Array,
    wi_EDF: jax.Array | Stacked,
    wo_EFD: jax.Array | Stacked,
    size_E: jax.Array,
) -> jax.Array:
    """[R, D]: of each row, by its expert's kernels; see sorted_product."""
    h_RF = kept(TileProduct(tiles, rectified=True)(x_RD, wi_EDF, size_E))
    return TileProduct(tiles, of_rectified=True)(h_RF, wo_EFD, size_E)


@dataclasses.dataclass(frozen=True)
class TileProduct:
    """x kernel or relu(x kernel).

    Attributes:
      rectified: whether it is the latter. Its result's gradient is then zero already where the
        result is not positive: the next product sees to that, whose `x` the result is.
      of_rectified: whether its `x` is such a result.
    """

    tiles: MosaicTiles
    rectified: bool = False
    of_rectified: bool = False

    def __call__(
        self, x_RD: jax.Array, kernel: jax.Array | Stacked, size_E: jax.Array
    ) -> jax.Array:
        """[R, F]; see sorted_product."""
        if not isinstance(kernel, Stacked):
            return _product(self, x_RD, kernel, size_E)
        y_RF, kernel.passed_LEDF = _in_stack(
            self, x_RD, kernel.passed_LEDF, kernel.kernel_LEDF, size_E, kernel.layer
        )
        return y_RF

    def tangent(
        self,
        dx_RD: jax.Array,
        kernel: jax.Array,
        size_E: jax.Array,
        mask_RD: jax.Array | None,
        layer: jax.Array | None = None,
    ) -> jax.Array:
        """dx kernel, [R, F].

        Args:
          kernel: [E, D, F], or [L, E, D, F] of which those of `layer` are meant.
          mask_RD: x, if that is a ReLU's result.
        """
        if mask_RD is not None:
            dx_RD = jnp.where(mask_RD > 0, dx_RD, 0)
        return self.tiles.rows(dx_RD, kernel, size_E, transposed=False, layer=layer)

    def gradient(
        self,
        dy_RF: jax.Array,
        kernel: jax.Array,
        size_E: jax.Array,
        mask_RD: jax.Array | None,
        layer: jax.Array | None = None,
    ) -> jax.Array:
        """That of x, [R, D]; see `tangent`."""
        return self.tiles.rows(dy_RF, kernel, size_E, True, mask_RN=mask_RD, layer=layer)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _product(
    of: TileProduct, x_RD: jax.Array, kernel_EDF: jax.Array, size_E: jax.Array
) -> jax.Array:
    return of.tiles.rows(x_RD, kernel_EDF, size_E, transposed=False, rectified=of.rectified)


def _product_jvp(
    of: TileProduct, primals: Sequence[jax.Array], tangents: Sequence[bilinear.Tangent]
) -> tuple[jax.Array, jax.Array]:
    masked: Any = (*primals, primals[0] if of.of_rectified else None)
    return _product(of, *primals), bilinear.tangent(
        of.tangent,
        of.gradient,
        lambda x, dy, size, _: of.tiles.outer(x, dy, size),
        masked,
        tangents,
    )


_product.defjvp(_product_jvp, symbolic_zeros=True)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _in_stack(
    of: TileProduct,
    x_RD: jax.Array,
    passed_LEDF: jax.Array,
    kernel_LEDF: jax.Array,
    size_E: jax.Array,
    layer: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The product with a layer's kernels, and `passed` as it is; see Stacked."""
    y_RF = of.tiles.rows(
        x_RD, kernel_LEDF, size_E, transposed=False, rectified=of.rectified, layer=layer
    )
    return y_RF, passed_LEDF


def _in_stack_jvp(
    of: TileProduct, primals: Sequence[jax.Array], tangents: Sequence[bilinear.Tangent]
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, Any]]:
    x_RD, _, kernel_LEDF, size_E, layer = primals
    dx_RD, dpassed_LEDF, *_ = tangents
    terms = []
    if not isinstance(dx_RD, SymbolicZero):
        mask_RD = x_RD if of.of_rectified else None
        terms.append(
            linear_call(
                lambda kept, dx: of.tangent(dx, *kept),
                lambda kept, dy: of.gradient(dy, *kept),
                (kernel_LEDF, size_E, mask_RD, layer),
                dx_RD,
            )
        )
    if not isinstance(dpassed_LEDF, SymbolicZero):

        def along(kept: Sequence[jax.Array], dpassed: jax.Array) -> tuple[jax.Array, jax.Array]:
            x_RD, size_E, layer = kept
            return of.tangent(x_RD, dpassed, size_E, None, layer), dpassed

        # No other layer writes its part, nor this one twice: nothing is there to be added to.
        def back(kept: Sequence[jax.Array], gradients: Sequence[jax.Array]) -> jax.Array:
            (x_RD, size_E, layer), (dy_RF, stack_LEDF) = kept, gradients
            return of.tiles.outer(x_RD, dy_RF, size_E, stack_LEDF, layer)

        dy_RF, dpassed_LEDF = linear_call(along, back, (x_RD, size_E, layer), dpassed_LEDF)
        terms.append(dy_RF)
    return _in_stack(of, *primals), (sum(terms[1:], terms[0]), dpassed_LEDF)


_in_stack.defjvp(_in_stack_jvp, symbolic_zeros=True)
