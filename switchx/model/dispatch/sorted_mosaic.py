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
    _, D, F = kernel_EDF.shape
    bytes_each = x_RD.dtype.itemsize, kernel_EDF.dtype.itemsize
    return all(
        sorted_tiles.of_rows(x_RD.shape[0], share, *size, *bytes_each, masked)
        for size in ((D, F), (F, D))
    )


def room(shape: tuple[int, ...]) -> jax.Array:
    """A float32 array that nothing has been written to."""
    return pl.pallas_call(
        lambda _: None,
        jax.ShapeDtypeStruct(shape, jnp.float32),
        out_specs=pl.BlockSpec(memory_space=pltpu.HBM),
        cost_estimate=pl.CostEstimate(0, 0, 0),
        interpret=platform() != "tpu",
        name="room",
    )()


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
        layer: jax.Array | None = None,
    ) -> jax.Array:
        """[R, N]: each row times its expert's kernel, [E, K, N], or [E, N, K] transposed.

        Rows beyond the last expert's are zeros.

        Args:
          kernel: in the dtype of the rows, or float32, which is rounded to it.
          layer: of which it is meant, where `kernel` is that of all layers, [L, E, ...].
          rectified: whether negative results are made zeros.
          mask_RN: results are zeros where this is not positive.
        """
        kernel, first_1 = _in_line(kernel, layer)
        if _lies_turned(kernel):
            kernel, transposed = kernel.swapaxes(1, 2), not transposed
        (R, K), E = x_RK.shape, size_E.shape[0]
        N = kernel.shape[1 if transposed else 2]
        masks = [] if mask_RN is None else [mask_RN]
        bytes_each = x_RK.dtype.itemsize, kernel.dtype.itemsize
        t = sorted_tiles.of_rows(R, self.share, K, N, *bytes_each, bool(masks))
        assert t is not None, "see fits"
        visits = Visits.to_every_row(size_E, R, t.rows)
        last = jnp.maximum(jnp.sum(size_E, dtype=jnp.int32) - 1, 0) // t.rows
        read_V = jnp.minimum(visits.tile_V, last)  # of rows that no expert has nothing is
        whose = lambda v, of: of[5][0] + jnp.minimum(of[3][v], E - 1)  # noqa: E731
        if transposed:
            block, place = (1, t.outputs, K), lambda n, v, *of: (whose(v, of), n, 0)
        else:
            block, place = (1, K, t.outputs), lambda n, v, *of: (whose(v, of), 0, n)
        rounded = []
        if kernel.dtype != x_RK.dtype:
            rounded.append(pltpu.VMEM(block[1:], x_RK.dtype))
        y_RN = jax.ShapeDtypeStruct((R, N), x_RK.dtype)
        y_tile = pl.BlockSpec((t.rows, t.outputs), lambda n, v, *of: (of[0][v], n))
        call = pl.pallas_call(
            functools.partial(_rows_kernel, t, E, transposed, rectified, self._dot),
            y_RN,
            grid_spec=pltpu.PrefetchScalarGridSpec(
                num_scalar_prefetch=6,
                grid=(pl.cdiv(N, t.outputs), visits.tile_V.shape[0]),
                in_specs=[
                    pl.BlockSpec((t.rows, K), lambda n, v, *of: (of[4][v], 0)),
                    pl.BlockSpec(block, place),
                    *(y_tile for _ in masks),
                ],
                out_specs=y_tile,
                scratch_shapes=rounded,
            ),
            name="sorted_rows",
            **_options(t, 2 * E * self.share * K * N, x_RK, _of(E, kernel), *masks, y_RN),
        )
        with jax.named_scope(scope_of(self.share, t.block)):
            return call(*visits, read_V, first_1, x_RK, kernel, *masks)

    def outer(
        self,
        x_RD: jax.Array,
        dy_RF: jax.Array,
        size_E: jax.Array,
        stack: jax.Array | None = None,
        layer: jax.Array | None = None,
    ) -> jax.Array:
        """[E, D, F]: x^T dy over each expert's rows, summed in float32.

        Args:
          stack: [L, E, D, F], of which a copy is returned where those of `layer` are these.
        """
        (R, D), F, E = x_RD.shape, dy_RF.shape[1], size_E.shape[0]
        if stack is not None and _lies_turned(stack):
            turned = self.outer(dy_RF, x_RD, size_E, stack.swapaxes(-1, -2), layer)
            return turned.swapaxes(-1, -2)
        others, out = [], jax.ShapeDtypeStruct((E, D, F), x_RD.dtype)
        first_1 = jnp.zeros(1, jnp.int32)
        if stack is not None:
            into, first_1 = _in_line(stack, layer)
            others, out = [into], jax.ShapeDtypeStruct(into.shape, into.dtype)
        t = sorted_tiles.of_outer(R, self.share, D, F, x_RD.dtype.itemsize, out.dtype.itemsize)
        assert t is not None, "tiles of one vector always fit"
        visits = Visits.to_every_expert(size_E, R, t.rows)
        call = pl.pallas_call(
            functools.partial(_outer_kernel, t, self._dot),
            out,
            grid_spec=pltpu.PrefetchScalarGridSpec(
                num_scalar_prefetch=5,
                grid=(pl.cdiv(D, t.inputs), pl.cdiv(F, t.outputs), visits.tile_V.shape[0]),
                in_specs=[
                    pl.BlockSpec((t.rows, t.inputs), lambda d, f, v, *of: (of[0][v], d)),
                    pl.BlockSpec((t.rows, t.outputs), lambda d, f, v, *of: (of[0][v], f)),
                    *(pl.BlockSpec(memory_space=pltpu.HBM) for _ in others),
                ],
                out_specs=pl.BlockSpec(
                    (1, t.inputs, t.outputs), lambda d, f, v, *of: (of[4][0] + of[3][v], d, f)
                ),
                scratch_shapes=[pltpu.VMEM((t.inputs, t.outputs), jnp.float32)],
            ),
            input_output_aliases={7: 0} if others else {},
            name="sorted_outer",
            **_options(t, 2 * E * self.share * D * F, x_RD, dy_RF, _of(E, out)),
        )
        with jax.named_scope(scope_of(self.share, t.block)):
            dkernel = call(*visits, first_1, x_RD, dy_RF, *others)
        return dkernel if stack is None else dkernel.reshape(stack.shape)

    def _dot(self, a: jax.Array, b: jax.Array, a_axis: int, b_axis: int) -> jax.Array:
        default = a.dtype != jnp.float32 or self.precision in (None, "default", "bfloat16")
        return jax.lax.dot_general(
            a,
            b,
            (((a_axis,), (b_axis,)), ((), ())),
            precision=None if default else jax.lax.Precision.HIGHEST,
            preferred_element_type=jnp.float32,
        )


def _lies_turned(kernel: jax.Array | jax.ShapeDtypeStruct) -> bool:
    """Whether XLA keeps the last dimension before the other, which fills whole vectors alone.

    A kernel of Pallas takes arrays as they are written, and would have it copied.
    """
    *_, D, F = kernel.shape
    return D % sorted_tiles.LANES == 0 and F % sorted_tiles.LANES != 0


def _in_line(kernel: jax.Array, layer: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """The kernels of all layers' experts one after the other, and where a layer's begin, [1]."""
    if layer is None:
        return kernel, jnp.zeros(1, jnp.int32)
    E = kernel.shape[1]
    return kernel.reshape(-1, *kernel.shape[2:]), (layer * E).astype(jnp.int32).reshape(1)


def _of(E: int, kernel: jax.Array | jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """What of all kernels those of E experts are."""
    return jax.ShapeDtypeStruct((E, *kernel.shape[1:]), kernel.dtype)


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
    first_1: jax.Ref,
    x_rK: jax.Ref,
    kernel: jax.Ref,
    *others: jax.Ref,
) -> None:
    v, before = pl.program_id(1), jnp.maximum(pl.program_id(1) - 1, 0)
    *masks, y_rn = others if kernel.dtype == x_rK.dtype else others[:-1]
    multiplied = kernel.at[0]
    if kernel.dtype != x_rK.dtype:
        multiplied = others[-1]

        @pl.when((v == 0) | (expert_V[v] != expert_V[before]))
        def rounded() -> None:
            multiplied[...] = kernel[0].astype(multiplied.dtype)

    @pl.when((v == 0) | (tile_V[v] != tile_V[before]))
    def begin() -> None:
        y_rn[...] = jnp.zeros_like(y_rn)

    def block(at: Any, mine_b1: jax.Array) -> None:
        y_bn = dot(x_rK[at], multiplied[...], 1, 1 if transposed else 0)
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
    first_1: jax.Ref,
    x_rd: jax.Ref,
    dy_rf: jax.Ref,
    *others: jax.Ref,
) -> None:
    *_, dkernel, sum_df = others
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
