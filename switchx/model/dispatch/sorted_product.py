"""Rows sorted by expert, each times its own expert's kernel: as many as chose it."""

import functools
from collections.abc import Sequence
from typing import Protocol

import jax

from switchx.model import bilinear
from switchx.model.activations import relu
from switchx.model.dispatch.sorted_blocks import XlaLoops, scope_of
from switchx.model.dispatch.stacked import Kernel, Stacked
from switchx.model.product import precision_in_force
from switchx.model.remat import kept
from switchx.model.tpu import from_v5_on
from switchx.sharding import platform

# Rows that are multiplied at a time on a TPU that has no room for tiles. Fewer waste less where an
# expert's rows end, more run nearer to the rate of the matrix unit.
_TPU_BLOCK = 512


def sorted_product(x_RD: jax.Array, kernel_EDF: Kernel, size_E: jax.Array, share: int) -> jax.Array:
    """[R, F]: the first size_E[0] rows times kernel 0, the next size_E[1] times kernel 1, ...

    `jax.lax.ragged_dot` where the platform is none of these three: XLA's programs of it for CPUs
    and NVIDIA GPUs multiply every row with every kernel, and the one for TPUs works on rows beyond
    the last too (53 times the FLOPs on 16 devices, whose room for rows is mostly empty).

    Args:
      size_E: int32; rows beyond their sum come out as anything finite.
      share: rows that an expert has where all have as many, about: the room may be for more.
    """
    precision = precision_in_force()
    if isinstance(kernel_EDF, Stacked):
        from switchx.model.dispatch import sorted_mosaic, sorted_network

        tiles = sorted_mosaic.MosaicTiles(share, precision)
        return sorted_network.TileProduct(tiles)(x_RD, kernel_EDF, size_E)
    form = _form(x_RD, kernel_EDF, share, precision)
    if form is None:
        return _ragged_dot(share, x_RD, kernel_EDF, size_E)
    return product(form, x_RD, kernel_EDF, size_E)


def _ragged_dot(share: int, x_RD: jax.Array, kernel_EDF: jax.Array, size_E: jax.Array) -> jax.Array:
    with jax.named_scope(scope_of(share, 1)):
        return jax.lax.ragged_dot(x_RD, kernel_EDF, size_E)


def cpu_block(share: int) -> int:
    """Rows at a time for experts of `share` rows each: half of it, from 32 to 128 (measured)."""
    return next((rows for rows in (128, 64) if share >= 2 * rows), 32)


def sorted_relu_network(
    x_RD: jax.Array, wi_EDF: Kernel, wo_EFD: Kernel, size_E: jax.Array, share: int
) -> jax.Array:
    """[R, D]: relu(x wi) wo of rows as `sorted_product` has them, on TPUs from v5 on."""
    from switchx.model.dispatch import sorted_mosaic, sorted_network

    if isinstance(wi_EDF, Stacked) or sorted_mosaic.fits(x_RD, wi_EDF, share, masked=True):
        tiles = sorted_mosaic.MosaicTiles(share, precision_in_force())
        return sorted_network.relu_network(tiles, x_RD, wi_EDF, wo_EFD, size_E)
    h_RF = relu(kept(sorted_product(x_RD, wi_EDF, size_E, share)))
    return sorted_product(h_RF, wo_EFD, size_E, share)


def _form(
    x_RD: jax.Array, kernel_EDF: jax.Array, share: int, precision: str | None
) -> "Form | None":
    """The platform's. On TPUs kernels, in a third of the cycles of XLA's loops and less
    (docs/speed.md), where they fit."""
    if platform() == "cpu":
        return XlaLoops(cpu_block(share), share, precision)
    if platform() == "gpu":
        from switchx.model.dispatch.sorted_triton import TritonTiles

        return TritonTiles(share, precision)
    if platform() != "tpu":
        return None
    if from_v5_on():
        from switchx.model.dispatch import sorted_mosaic

        if sorted_mosaic.fits(x_RD, kernel_EDF, share):
            return sorted_mosaic.MosaicTiles(share, precision)
    return XlaLoops(_TPU_BLOCK, share, precision)


class Form(Protocol):
    """How the two products of sorted rows are computed; hashable."""

    def rows(
        self, x_RK: jax.Array, kernel: jax.Array, size_E: jax.Array, transposed: bool
    ) -> jax.Array:
        """[R, N]: each row times its expert's kernel, [E, K, N], or [E, N, K] transposed."""

    def outer(self, x_RD: jax.Array, dy_RF: jax.Array, size_E: jax.Array) -> jax.Array:
        """[E, D, F]: x^T dy over each expert's rows, summed in float32."""


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def product(form: Form, x_RD: jax.Array, kernel_EDF: jax.Array, size_E: jax.Array) -> jax.Array:
    """As `sorted_product`, in this form, and so its gradients."""
    return form.rows(x_RD, kernel_EDF, size_E, transposed=False)


def _product_jvp(
    form: Form, primals: Sequence[jax.Array], tangents: Sequence[bilinear.Tangent]
) -> tuple[jax.Array, jax.Array]:
    return product(form, *primals), bilinear.tangent(
        functools.partial(form.rows, transposed=False),
        functools.partial(form.rows, transposed=True),
        form.outer,
        primals,
        tangents,
    )


product.defjvp(_product_jvp, symbolic_zeros=True)
