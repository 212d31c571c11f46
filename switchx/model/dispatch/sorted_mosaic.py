"""The products of sorted rows on TPUs, as kernels of Pallas and Mosaic.

A program of the grid multiplies the rows that one expert has in one tile (Gale et al. 2023,
MegaBlocks; the tiles are found as in JAX's megablox), in blocks of which it multiplies those alone
that hold such rows. What it reads next is brought from memory meanwhile, and a kernel that the
next program needs too stays.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from switchx.model.dispatch import sorted_tiles
from switchx.model.dispatch.sorted_blocks import scope_of
from switchx.model.dispatch.sorted_visits import Visits
from switchx.sharding import platform


def fits(x_RD: jax.Array, kernel_EDF: jax.Array, share: int, masked: bool = False) -> bool:
    """Whether tiles of these fit into a TPU's fast memory, and those for the inputs' gradients.

    `masked`: with rows beside the results, see MosaicTiles.rows.
    """
    (R, itemsize), (_, D, F) = (x_RD.shape[0], x_RD.dtype.itemsize), kernel_EDF.shape
    sizes = (D, F), (F, D)
    return all(sorted_tiles.of_rows(R, share, *size, itemsize, masked) for size in sizes)


@dataclasses.dataclass(frozen=True)
class MosaicTiles:
    """One form of the products, see sorted_product.

    Attributes:
      share: rows that an expert has where all have as many, about.
      precision: of products in float32, as `jax.default_matmul_precision` names it: the highest,
        unless it is the platform's default.
    """

    share: int
    precision: str | None

    def rows(
        self,
        x_RK: jax.Array,
        kernel: jax.Array,
        size_E: jax.Array,
        transposed: bool,
        rectified: bool = False,
        mask_RN: jax.Array | None = None,
    ) -> jax.Array:
        """[R, N]: each row times its expert's kernel, [E, K, N], or [E, N, K] transposed.

        Rows beyond the last expert's are zeros.

        Args:
          rectified: whether negative results are made zeros.
          mask_RN: results are zeros where this is not positive.
        """
        (R, K), E = x_RK.shape, kernel.shape[0]
        N = kernel.shape[1 if transposed else 2]
        masks = [] if mask_RN is None else [mask_RN]
        t = sorted_tiles.of_rows(R, self.share, K, N, x_RK.dtype.itemsize, bool(masks))
        assert t is not None, "see fits"
        visits = Visits.to_every_row(size_E, R, t.rows)
        last = jnp.maximum(jnp.sum(size_E, dtype=jnp.int32) - 1, 0) // t.rows
        read_V = jnp.minimum(visits.tile_V, last)  # of rows that no expert has nothing is
        whose = lambda v, expert_V: jnp.minimum(expert_V[v], E - 1)  # noqa: E731
        if transposed:
            block, place = (1, t.outputs, K), lambda n, v, *of: (whose(v, of[3]), n, 0)
        else:
            block, place = (1, K, t.outputs), lambda n, v, *of: (whose(v, of[3]), 0, n)
        y_RN = jax.ShapeDtypeStruct((R, N), x_RK.dtype)
        y_tile = pl.BlockSpec((t.rows, t.outputs), lambda n, v, *of: (of[0][v], n))
        call = pl.pallas_call(
            functools.partial(_rows_kernel, t, E, transposed, rectified, self._dot),
            y_RN,
            grid_spec=pltpu.PrefetchScalarGridSpec(
                num_scalar_prefetch=5,
                grid=(pl.cdiv(N, t.outputs), visits.tile_V.shape[0]),
                in_specs=[
                    pl.BlockSpec((t.rows, K), lambda n, v, *of: (of[4][v], 0)),
                    pl.BlockSpec(block, place),
                    *(y_tile for _ in masks),
                ],
                out_specs=y_tile,
            ),
            name="sorted_rows",
            **_options(t, 2 * E * self.share * K * N, x_RK, kernel, *masks, y_RN),
        )
        with jax.named_scope(scope_of(self.share, t.block)):
            return call(*visits, read_V, x_RK, kernel, *masks)

    def outer(self, x_RD: jax.Array, dy_RF: jax.Array, size_E: jax.Array) -> jax.Array:
        """[E, D, F]: x^T dy over each expert's rows, summed in float32."""
        (R, D), F, E = x_RD.shape, dy_RF.shape[1], size_E.shape[0]
        t = sorted_tiles.of_outer(R, self.share, D, F, x_RD.dtype.itemsize)
        assert t is not None, "tiles of one vector always fit"
        visits = Visits.to_every_expert(size_E, R, t.rows)
        dkernel_EDF = jax.ShapeDtypeStruct((E, D, F), x_RD.dtype)
        call = pl.pallas_call(
            functools.partial(_outer_kernel, t, self._dot),
            dkernel_EDF,
            grid_spec=pltpu.PrefetchScalarGridSpec(
                num_scalar_prefetch=4,
                grid=(pl.cdiv(D, t.inputs), pl.cdiv(F, t.outputs), visits.tile_V.shape[0]),
                in_specs=[
                    pl.BlockSpec((t.rows, t.inputs), lambda d, f, v, *of: (of[0][v], d)),
                    pl.BlockSpec((t.rows, t.outputs), lambda d, f, v, *of: (of[0][v], f)),
                ],
                out_specs=pl.BlockSpec(
                    (1, t.inputs, t.outputs), lambda d, f, v, *of: (of[3][v], d, f)
                ),
                scratch_shapes=[pltpu.VMEM((t.inputs, t.outputs), jnp.float32)],
            ),
            name="sorted_outer",
            **_options(t, 2 * E * self.share * D * F, x_RD, dy_RF, dkernel_EDF),
        )
        with jax.named_scope(scope_of(self.share, t.block)):
            return call(*visits, x_RD, dy_RF)

    def _dot(self, a: jax.Array, b: jax.Array, a_axis: int, b_axis: int) -> jax.Array:
        default = a.dtype != jnp.float32 or self.precision in (None, "default", "bfloat16")
        return jax.lax.dot_general(
            a,
            b,
            (((a_axis,), (b_axis,)), ((), ())),
            precision=None if default else jax.lax.Precision.HIGHEST,
            preferred_element_type=jnp.float32,
        )


def _options(
    t: sorted_tiles.Tiles, flops: int, *arrays: jax.Array | jax.ShapeDtypeStruct
) -> dict[str, Any]:
    """Counted as if each array passed through memory once."""
    return {
        "compiler_params": pltpu.CompilerParams(
            dimension_semantics=(*(pltpu.PARALLEL,) * t.parallel, pltpu.ARBITRARY),
            vmem_limit_bytes=sorted_tiles.FAST_MEMORY,
        ),
        "cost_estimate": pl.CostEstimate(flops, 0, sum(a.size * a.dtype.itemsize for a in arrays)),
        "interpret": platform() != "tpu",
    }


def _rows_kernel(
    t: sorted_tiles.Tiles,
    E: int,
    transposed: bool,
    rectified: bool,
    dot: Any,
    tile_V: jax.Ref,
    start_V: jax.Ref,
    end_V: jax.Ref,
    expert_V: jax.Ref,
    read_V: jax.Ref,
    x_rK: jax.Ref,
    kernel: jax.Ref,
    *mask_and_y_rn: jax.Ref,
) -> None:
    *masks, y_rn = mask_and_y_rn
    v = pl.program_id(1)

    @pl.when((v == 0) | (tile_V[v] != tile_V[jnp.maximum(v - 1, 0)]))
    def begin() -> None:
        y_rn[...] = jnp.zeros_like(y_rn)

    def block(at: Any, mine_b1: jax.Array) -> None:
        y_bn = dot(x_rK[at], kernel[0], 1, 1 if transposed else 0)
        if rectified:
            y_bn = jnp.maximum(y_bn, 0)
        for mask_rn in masks:  # compared in float32: not every TPU compares bfloat16
            y_bn = jnp.where(mask_rn[at].astype(jnp.float32) > 0, y_bn, 0)
        other_bn = y_rn[at].astype(jnp.float32)
        y_rn[at] = jnp.where(mine_b1, y_bn, other_bn).astype(y_rn.dtype)

    end = jnp.where(expert_V[v] < E, end_V[v], 0)
    _each_block(t, tile_V[v], start_V[v], end, block)


def _outer_kernel(
    t: sorted_tiles.Tiles,
    dot: Any,
    tile_V: jax.Ref,
    start_V: jax.Ref,
    end_V: jax.Ref,
    expert_V: jax.Ref,
    x_rd: jax.Ref,
    dy_rf: jax.Ref,
    dkernel: jax.Ref,
    sum_df: jax.Ref,
) -> None:
    v, last = pl.program_id(2), pl.num_programs(2) - 1

    @pl.when((v == 0) | (expert_V[v] != expert_V[jnp.maximum(v - 1, 0)]))
    def begin() -> None:
        sum_df[...] = jnp.zeros_like(sum_df)

    def block(at: Any, mine_b1: jax.Array) -> None:
        # Both: others' rows may be beyond the array, and no numbers.
        x_bd, dy_bf = (jnp.where(mine_b1, x[at], jnp.zeros_like(x[at])) for x in (x_rd, dy_rf))
        sum_df[...] += dot(x_bd, dy_bf, 0, 0)

    _each_block(t, tile_V[v], start_V[v], end_V[v], block)

    @pl.when((v == last) | (expert_V[v] != expert_V[jnp.minimum(v + 1, last)]))
    def end() -> None:
        dkernel[0] = sum_df[...].astype(dkernel.dtype)


def _each_block(t: sorted_tiles.Tiles, tile: Any, start: Any, end: Any, body: Any) -> None:
    """Calls `body` with each block of the tile that holds rows from start to end, and which."""
    first = tile * t.rows

    def one(i: jax.Array, _: None) -> None:
        at = pl.ds(pl.multiple_of(i * t.block, t.block), t.block)
        number_b1 = jax.lax.broadcasted_iota(jnp.int32, (t.block, 1), 0) + first + i * t.block
        body(at, (number_b1 >= start) & (number_b1 < end))

    # By division of numbers that are not negative: the rounding of others is no one instruction.
    begun = jax.lax.div(start - first, t.block)
    done = jax.lax.div(jnp.maximum(end - first, 0) + t.block - 1, t.block)
    jax.lax.fori_loop(begun, done, one, None)
