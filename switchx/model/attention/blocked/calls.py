"""Attention's kernels, called with whole arrays: what each program is given of them.

Programs go first by heads, then by rows, then by blocks: the bias of a program's heads is spread
out once, and its gradient is summed over all rows, before the next heads' turn.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from switchx.model.attention.blocked import kernels, strips
from switchx.model.attention.blocked.tiles import Tiles
from switchx.model.attention.visibility import Visibility
from switchx.sharding import platform

# What the longest sequences need, of v5p's 64 MB; and what those of one block do, so that the
# compiler can keep other arrays there meanwhile.
_FAST_MEMORY, _OF_ONE_BLOCK = 56 << 20, 24 << 20


def forward(
    query_BLHK: jax.Array,
    key_BMHK: jax.Array,
    value_BMHK: jax.Array,
    bias_HW: jax.Array | None,
    visibility: Visibility,
) -> tuple[jax.Array, jax.Array]:
    """[B, L, H, K], and each query's log-sum-exp, float32 [B, programs, n, L]."""
    t = Tiles.of(query_BLHK, key_BMHK)
    given = _given(query_BLHK, key_BMHK, value_BMHK, bias_HW, visibility, t)
    B = query_BLHK.shape[0]
    queries = pl.BlockSpec((1, t.l, t.width), lambda p, b, i: (b, i, p))
    keys = pl.BlockSpec((1, t.M, t.width), lambda p, b, i: (b, 0, p))
    log_sum = pl.BlockSpec((1, 1, t.n, t.l), lambda p, b, i: (b, p, 0, i))
    specs = kernels.Given(
        strips=_spec(given.strips, lambda p, b, i: (p, 0, 0)),
        query_segment=_spec(given.query_segment, lambda p, b, i: (b, 0, i), t.l),
        key_segment=_spec(given.key_segment, lambda p, b, i: (b, 0, 0)),
        query=queries,
        key=keys,
        value=keys,
    )
    y_BLT, log_sum = pl.pallas_call(
        functools.partial(kernels.forward, t, visibility.causal),
        grid=(t.programs, B, t.query_blocks),
        in_specs=[specs],
        out_specs=[queries, log_sum],
        out_shape=[
            _like(given.query),
            jax.ShapeDtypeStruct((B, t.programs, t.n, t.L), jnp.float32),
        ],
        scratch_shapes=[_blocks_of_bias(bias_HW, t)],
        name="attention_forward",
        **_options(t, given.query, products=2),
    )(given)
    return y_BLT.reshape(query_BLHK.shape), log_sum


def backward(
    query_BLHK: jax.Array,
    key_BMHK: jax.Array,
    value_BMHK: jax.Array,
    bias_HW: jax.Array | None,
    visibility: Visibility,
    y_BLHK: jax.Array,
    log_sum: jax.Array,
    dy_BLHK: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | None]:
    """The gradients of queries, keys, values and bias_HW from what `forward` took and gave."""
    t = Tiles.of(query_BLHK, key_BMHK)
    given = _given(query_BLHK, key_BMHK, value_BMHK, bias_HW, visibility, t)
    queries = pl.BlockSpec((1, t.L, t.width), lambda p, b, j: (b, 0, p))
    keys = pl.BlockSpec((1, t.m, t.width), lambda p, b, j: (b, j, p))
    of_strips = _spec(given.strips, lambda p, b, j: (p, 0, 0))
    specs = kernels.Given(
        strips=of_strips,
        query_segment=_spec(given.query_segment, lambda p, b, j: (b, 0, 0)),
        key_segment=_spec(given.key_segment, lambda p, b, j: (b, 0, j), t.m),
        query=queries,
        key=keys,
        value=keys,
    )
    log_sums = pl.BlockSpec((1, 1, t.n, t.L), lambda p, b, j: (b, p, 0, 0))
    *grads, dstrips = pl.pallas_call(
        functools.partial(kernels.backward, t, visibility.causal),
        grid=(t.programs, query_BLHK.shape[0], t.key_blocks),
        in_specs=[specs, queries, log_sums, queries],
        out_specs=[queries, keys, keys, of_strips],
        out_shape=[*map(_like, (given.query, given.key, given.value)), _like(given.strips)],
        scratch_shapes=[
            pltpu.VMEM((t.width, t.L), jnp.float32),
            pltpu.VMEM((t.n, t.L), jnp.float32),
            _blocks_of_bias(bias_HW, t),
            _blocks_of_bias(bias_HW, t),
        ],
        name="attention_backward",
        **_options(t, given.query, products=5),
    )(given, _flat(y_BLHK), log_sum, _flat(dy_BLHK))
    dquery, dkey, dvalue = (x.reshape(*x.shape[:2], t.H, t.K) for x in grads)
    dbias_HW = None if bias_HW is None else strips.bias_of(dstrips, bias_HW, t)
    return dquery, dkey, dvalue, dbias_HW


def _given(
    query_BLHK: jax.Array,
    key_BMHK: jax.Array,
    value_BMHK: jax.Array,
    bias_HW: jax.Array | None,
    visibility: Visibility,
    t: Tiles,
) -> kernels.Given:
    return kernels.Given(
        strips=None if bias_HW is None else strips.strips_of(bias_HW, t),
        query_segment=_row(visibility.query_BL),
        key_segment=_row(visibility.key_BM),
        query=_flat(query_BLHK),
        key=_flat(key_BMHK),
        value=_flat(value_BMHK),
    )


def _flat(x_BLHK: jax.Array) -> jax.Array:
    """[B, L, H K], as the projections leave it."""
    return x_BLHK.reshape(*x_BLHK.shape[:2], -1)


def _row(segment_BL: jax.Array | None) -> jax.Array | None:
    return None if segment_BL is None else segment_BL[:, None].astype(jnp.int32)


def _like(x: jax.Array | None) -> jax.ShapeDtypeStruct | None:
    return None if x is None else jax.ShapeDtypeStruct(x.shape, x.dtype)


def _spec(x: jax.Array | None, index: Any, size: int | None = None) -> pl.BlockSpec | None:
    """Of one element of the first dimension, and `size` of the last."""
    return None if x is None else pl.BlockSpec((1, x.shape[1], size or x.shape[2]), index)


def _blocks_of_bias(bias_HW: jax.Array | None, t: Tiles) -> Any:
    if bias_HW is None:
        return None
    return pltpu.VMEM((t.n, strips.count(t), *strips.block_shape(t)), jnp.float32)


def _options(t: Tiles, query: jax.Array, products: int) -> dict[str, Any]:
    """`products`: of the size of the logits."""
    logits = query.shape[0] * t.H * t.L * t.M
    one_block = (t.query_blocks, t.key_blocks) == (1, 1)
    rows = query.shape[0] * (t.L + t.M) * t.H * t.K * query.dtype.itemsize
    return {
        "compiler_params": pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary", "arbitrary"),
            vmem_limit_bytes=_OF_ONE_BLOCK if one_block else _FAST_MEMORY,
        ),
        "cost_estimate": pl.CostEstimate(
            flops=2 * products * logits * t.K,
            transcendentals=logits,
            bytes_accessed=(products - 1) * rows,
        ),
        "interpret": platform() != "tpu",
    }
