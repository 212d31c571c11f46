"""The products of sorted rows on NVIDIA GPUs, as kernels of Pallas and Triton.

XLA's own program of `jax.lax.ragged_dot` for them (jaxlib 0.10.2) multiplies every row with every
kernel. Here a program of the grid multiplies one tile of rows of one expert (Gale et al. 2023,
MegaBlocks; the tiles are found as in JAX's megablox), and stores that expert's rows alone.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from switchx.model.dispatch.sorted_visits import Visits
from switchx.sharding import platform

# A tile's rows and outputs, and the bytes of its summands: in three stages 96 KiB of a
# multiprocessor's shared memory, which those of bfloat16's generations have. Compiled for an H100
# (16,384 rows, 768 x 3072, 8 and 128 experts); no GPU has run it yet.
_ROWS, _OUTPUTS, _SUMMAND_BYTES = 128, 128, 128
_PARAMETERS = plgpu.CompilerParams(num_warps=8, num_stages=3)


@dataclasses.dataclass(frozen=True)
class TritonTiles:
    """One form of the products, see sorted_product.

    Attributes:
      share: rows that an expert has where all have as many, about.
      precision: of the products, as `jax.default_matmul_precision` names it.
    """

    share: int
    precision: str | None

    def rows(
        self, x_RK: jax.Array, kernel: jax.Array, size_E: jax.Array, transposed: bool
    ) -> jax.Array:
        """[R, N]: each row times its expert's kernel, [E, K, N], or [E, N, K] transposed.

        Rows beyond the last expert's are zeros.
        """
        (R, K), E = x_RK.shape, kernel.shape[0]
        N = kernel.shape[1 if transposed else 2]
        visits = Visits.to_every_row(size_E, R, _ROWS)
        y_RN = jax.ShapeDtypeStruct((R, N), x_RK.dtype)
        call = pl.pallas_call(
            functools.partial(_rows_kernel, E, transposed, self._dot),
            y_RN,
            grid=(pl.cdiv(N, _OUTPUTS), visits.tile_V.shape[0]),
            compiler_params=_PARAMETERS,
            cost_estimate=_cost(2 * E * self.share * K * N, x_RK, kernel, y_RN),
            interpret=platform() != "gpu",
            name="sorted_rows",
        )
        return call(*visits, x_RK, kernel)

    def outer(self, x_RD: jax.Array, dy_RF: jax.Array, size_E: jax.Array) -> jax.Array:
        """[E, D, F]: x^T dy over each expert's rows, summed in float32."""
        D, F, E = x_RD.shape[1], dy_RF.shape[1], size_E.shape[0]
        end_E = jnp.cumsum(size_E)
        dkernel_EDF = jax.ShapeDtypeStruct((E, D, F), x_RD.dtype)
        call = pl.pallas_call(
            functools.partial(_outer_kernel, self._dot),
            dkernel_EDF,
            grid=(pl.cdiv(F, _OUTPUTS), pl.cdiv(D, _ROWS), E),
            compiler_params=_PARAMETERS,
            cost_estimate=_cost(2 * E * self.share * D * F, x_RD, dy_RF, dkernel_EDF),
            interpret=platform() != "gpu",
            name="sorted_outer",
        )
        return call(end_E - size_E, end_E, x_RD, dy_RF)

    def _dot(self, a: jax.Array, b: jax.Array, **transposed: bool) -> jax.Array:
        return plgpu.dot(a, b, precision=self.precision, **transposed)


def _cost(flops: int, *arrays: jax.Array | jax.ShapeDtypeStruct) -> pl.CostEstimate:
    """Each array passes through memory once."""
    return pl.CostEstimate(flops, 0, sum(a.size * a.dtype.itemsize for a in arrays))


def _summands(x: jax.Ref) -> int:
    """Of a tile."""
    return _SUMMAND_BYTES // jnp.dtype(x.dtype).itemsize


def _rows_kernel(
    E: int,
    transposed: bool,
    dot: Callable,
    tile_V: jax.Ref,
    start_V: jax.Ref,
    end_V: jax.Ref,
    expert_V: jax.Ref,
    x_RK: jax.Ref,
    kernel: jax.Ref,
    y_RN: jax.Ref,
) -> None:
    visit, K, N = pl.program_id(1), x_RK.shape[1], y_RN.shape[1]
    first, expert, n = tile_V[visit] * _ROWS, expert_V[visit], _summands(x_RK)
    number_b = first + jnp.arange(_ROWS)
    mine_b1 = ((number_b >= start_V[visit]) & (number_b < end_V[visit]))[:, None]
    output = pl.program_id(0) * _OUTPUTS
    at_b, at_n = pl.ds(first, _ROWS), pl.ds(output, _OUTPUTS)
    there_n = output + jnp.arange(_OUTPUTS) < N

    def summand(i: jax.Array, sum_bn: jax.Array) -> jax.Array:
        at_k = pl.ds(i * n, n)
        there_k = i * n + jnp.arange(n) < K
        x_bk = plgpu.load(x_RK.at[at_b, at_k], mask=mine_b1 & there_k[None, :], other=0)
        if transposed:
            mask = there_n[:, None] & there_k[None, :]
            kernel_nk = plgpu.load(kernel.at[expert, at_n, at_k], mask=mask, other=0)
            return sum_bn + dot(x_bk, kernel_nk, trans_b=True)
        mask = there_k[:, None] & there_n[None, :]
        kernel_kn = plgpu.load(kernel.at[expert, at_k, at_n], mask=mask, other=0)
        return sum_bn + dot(x_bk, kernel_kn)

    summands = pl.cdiv(K, n) * (expert < E).astype(jnp.int32)
    sum_bn = jax.lax.fori_loop(0, summands, summand, jnp.zeros((_ROWS, _OUTPUTS), jnp.float32))
    plgpu.store(y_RN.at[at_b, at_n], sum_bn.astype(y_RN.dtype), mask=mine_b1 & there_n[None, :])


def _outer_kernel(
    dot: Callable,
    start_E: jax.Ref,
    end_E: jax.Ref,
    x_RD: jax.Ref,
    dy_RF: jax.Ref,
    dkernel_EDF: jax.Ref,
) -> None:
    expert, D, F, n = pl.program_id(2), x_RD.shape[1], dy_RF.shape[1], _summands(x_RD)
    start, end = start_E[expert], end_E[expert]
    row, column = pl.program_id(1) * _ROWS, pl.program_id(0) * _OUTPUTS
    at_d, at_f = pl.ds(row, _ROWS), pl.ds(column, _OUTPUTS)
    there_1d = (row + jnp.arange(_ROWS) < D)[None, :]
    there_1f = (column + jnp.arange(_OUTPUTS) < F)[None, :]

    def summand(i: jax.Array, sum_df: jax.Array) -> jax.Array:
        first = start + i * n
        at_k = pl.ds(first, n)
        mine_k1 = (first + jnp.arange(n) < end)[:, None]
        x_kd = plgpu.load(x_RD.at[at_k, at_d], mask=mine_k1 & there_1d, other=0)
        dy_kf = plgpu.load(dy_RF.at[at_k, at_f], mask=mine_k1 & there_1f, other=0)
        return sum_df + dot(x_kd, dy_kf, trans_a=True)

    summands = pl.cdiv(end - start, n)
    sum_df = jax.lax.fori_loop(0, summands, summand, jnp.zeros((_ROWS, _OUTPUTS), jnp.float32))
    mask = there_1d.T & there_1f
    plgpu.store(dkernel_EDF.at[expert, at_d, at_f], sum_df.astype(dkernel_EDF.dtype), mask=mask)
