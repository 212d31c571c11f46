"""softmax(query key + bias) value, and its gradients, by blocks that never leave the chip.

FlashAttention (Dao et al. 2022, algorithms 2 and 4) as a Pallas kernel for TPUs, with T5's bias: the
bias is read as its diagonals, and its gradient is summed over rows and along diagonals in the kernel.

A program computes a few heads that fill the 128 lanes of a vector together, n of them, so that
queries, keys and values are read as the projections leave them. A product of one head has zeros in
the others' lanes, which costs nothing: the matrix unit is as wide. Logits are held as
[keys, queries]: what belongs to a query, such as its log-sum-exp, is then a row over lanes.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from switchx.model.attention.visibility import Visibility
from switchx.sharding import platform

LANES = 128
_WHOLE, _BLOCK, _LONGEST = 512, 256, 4096  # lengths: of one block at most, of blocks of longer ones


def fits(H: int, L: int, M: int, K: int, biased: bool) -> bool:
    """Whether a device's H heads of width K, L queries and M keys can be cut into blocks."""
    fill = H % (LANES // K) == 0 if LANES % K == 0 else K % LANES == 0
    return (
        fill
        and all(x <= _WHOLE or (x % _BLOCK == 0 and x <= _LONGEST) for x in (L, M))
        and (L == M or not biased)
    )


def _flat(x_BLHK: jax.Array) -> jax.Array:
    return x_BLHK.reshape(*x_BLHK.shape[:2], -1)


@dataclasses.dataclass(frozen=True)
class Tiles:
    """How a device's share is cut up.

    Attributes:
      H, L, M, K: its heads, queries, keys, and width of a head.
      n: heads of a program.
      l, m: queries and keys of a block.
    """

    H: int
    L: int
    M: int
    K: int
    n: int
    l: int
    m: int

    @classmethod
    def of(cls, query_BLHK: jax.Array, key_BMHK: jax.Array) -> "Tiles":
        (_, L, H, K), M = query_BLHK.shape, key_BMHK.shape[1]
        n = max(1, LANES // K)
        return cls(H, L, M, K, n, *(x if x <= _WHOLE else _BLOCK for x in (L, M)))

    @property
    def T(self) -> int:
        return self.n * self.K

    @property
    def offsets(self) -> int:
        """Diagonals of blocks: blocks on one of them have the same bias."""
        return self.L // self.l + self.M // self.m - 1

    @property
    def rows(self) -> int:
        """Rows of a block of the bias, a power of two."""
        return max(8, 1 << (self.m - 1).bit_length())

    @property
    def columns(self) -> int:
        return -(-self.l // LANES) * LANES

    @property
    def strip(self) -> int:
        """Numbers that a block of the bias is made of, and some more."""
        return -(-(self.rows + self.columns) // LANES) * LANES


def forward(
    query_BLHK: jax.Array,
    key_BMHK: jax.Array,
    value_BMHK: jax.Array,
    bias_HW: jax.Array | None,
    visibility: Visibility,
) -> tuple[jax.Array, jax.Array]:
    """[B, L, H, K], and each query's log-sum-exp, [B, H/n, n, L]."""
    t = Tiles.of(query_BLHK, key_BMHK)
    query_BLT, key_BMT, value_BMT = map(_flat, (query_BLHK, key_BMHK, value_BMHK))
    B, groups = query_BLT.shape[0], t.H // t.n
    strips = _strips(bias_HW, t)
    masks = _masks(visibility)
    of_queries = pl.BlockSpec((1, t.l, t.T), lambda g, b, i: (b, i, g))
    of_keys = pl.BlockSpec((1, t.M, t.T), lambda g, b, i: (b, 0, g))
    y_BLT, log_sum = pl.pallas_call(
        functools.partial(_forward, t, visibility.causal),
        grid=(groups, B, t.L // t.l),
        in_specs=[
            _spec(strips, lambda g, b, i: (g, 0, 0)),
            _spec(masks[0], lambda g, b, i: (b, 0, i), t.l),
            _spec(masks[1], lambda g, b, i: (b, 0, 0)),
            of_queries,
            of_keys,
            of_keys,
        ],
        out_specs=[of_queries, pl.BlockSpec((1, 1, t.n, t.l), lambda g, b, i: (b, g, 0, i))],
        out_shape=[
            jax.ShapeDtypeStruct(query_BLT.shape, query_BLT.dtype),
            jax.ShapeDtypeStruct((B, groups, t.n, t.L), jnp.float32),
        ],
        scratch_shapes=[_bias_scratch(strips, t)],
        **_options(t, B, 2, query_BLT.dtype),
    )(strips, *masks, query_BLT, key_BMT, value_BMT)
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
    query_BLT, key_BMT, value_BMT = map(_flat, (query_BLHK, key_BMHK, value_BMHK))
    y_BLT, dy_BLT = _flat(y_BLHK), _flat(dy_BLHK)
    B, groups = query_BLT.shape[0], t.H // t.n
    strips = _strips(bias_HW, t)
    masks = _masks(visibility)
    of_queries = pl.BlockSpec((1, t.L, t.T), lambda g, b, j: (b, 0, g))
    of_keys = pl.BlockSpec((1, t.m, t.T), lambda g, b, j: (b, j, g))
    of_strips = _spec(strips, lambda g, b, j: (g, 0, 0))
    *grads, dstrips = pl.pallas_call(
        functools.partial(_backward, t, visibility.causal),
        grid=(groups, B, t.M // t.m),
        in_specs=[
            of_strips,
            _spec(masks[0], lambda g, b, j: (b, 0, 0)),
            _spec(masks[1], lambda g, b, j: (b, 0, j), t.m),
            of_queries,
            of_keys,
            of_keys,
            of_queries,
            pl.BlockSpec((1, 1, t.n, t.L), lambda g, b, j: (b, g, 0, 0)),
            of_queries,
        ],
        out_specs=[of_queries, of_keys, of_keys, of_strips],
        out_shape=[
            *(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (query_BLT, key_BMT, value_BMT)),
            strips if strips is None else jax.ShapeDtypeStruct(strips.shape, strips.dtype),
        ],
        scratch_shapes=[
            pltpu.VMEM((t.T, t.L), jnp.float32),
            pltpu.VMEM((t.n, t.L), jnp.float32),
            _bias_scratch(strips, t),
            _bias_scratch(strips, t),
        ],
        **_options(t, B, 5, query_BLT.dtype),
    )(strips, *masks, query_BLT, key_BMT, value_BMT, y_BLT, log_sum, dy_BLT)
    grads = [x.reshape(*x.shape[:2], t.H, t.K) for x in grads]
    if bias_HW is None:
        return *grads, None
    (dbias_HW,) = jax.linear_transpose(lambda x_HW: _strips(x_HW, t), bias_HW)(dstrips)
    return *grads, dbias_HW


def _options(t, B, products, dtype):
    work = B * t.H * t.L * t.M
    return {
        "compiler_params": pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary", "arbitrary"),
            vmem_limit_bytes=64 << 20,
        ),
        "cost_estimate": pl.CostEstimate(
            flops=2 * products * work * t.K,
            transcendentals=work,
            bytes_accessed=(products - 1) * B * (t.L + t.M) * t.H * t.K * jnp.dtype(dtype).itemsize,
        ),
        "interpret": platform() != "tpu",
    }


def _spec(x, index, size=None):
    if x is None:
        return None
    return pl.BlockSpec((1, *x.shape[1:-1], size or x.shape[-1]), index)


def _bias_scratch(strips, t):
    if strips is None:
        return None
    return pltpu.VMEM((t.n, t.offsets, t.rows, t.columns), jnp.float32)


def _masks(visibility):
    return [
        None if x is None else x[:, None].astype(jnp.int32)
        for x in (visibility.query_BL, visibility.key_BM)
    ]


def _strips(bias_HW, t):
    """[H/n, n O, P]: of each block offset, what its bias is made of."""
    if bias_HW is None:
        return None
    H = bias_HW.shape[0]
    padded = jnp.pad(bias_HW[:, ::-1], ((0, 0), (t.rows, t.strip)))
    starts = [t.M - (o + 1 - t.L // t.l) * t.m for o in range(t.offsets)]
    strips = jnp.stack([padded[:, x : x + t.strip] for x in starts], axis=1)
    return strips.reshape(H // t.n, t.n * t.offsets, t.strip)


def _spread(strips_ref, bias_scr, t):
    """Row m of a block of the bias is its strip from rows - 1 - m on."""

    def one(index, _):
        strip = strips_ref[0, pl.ds(index, 1)]
        turned = pltpu.roll(
            jnp.broadcast_to(strip, (t.rows, t.strip)),
            t.strip - t.rows + 1,
            1,
            stride=1,
            stride_axis=0,
        )
        bias_scr[index // t.offsets, index % t.offsets] = turned[:, : t.columns]

    jax.lax.fori_loop(0, t.n * t.offsets, one, None)


def _gathered(dbias_scr, dstrips_ref, t):
    """The adjoint of _spread, by halves: the upper one's rows begin later by as many as they are."""

    def one(index, _):
        x = dbias_scr[index // t.offsets, index % t.offsets]
        x = jnp.concatenate([x, jnp.zeros((t.rows, t.strip - t.columns), x.dtype)], axis=1)
        while (half := x.shape[0] // 2) > 0:
            x = pltpu.roll(x[:half], half, 1) + x[half:]
        dstrips_ref[0, pl.ds(index, 1)] = x

    jax.lax.fori_loop(0, t.n * t.offsets, one, None)


def _heads(x, t):
    """Of [..., n K], each head's part beside zeros."""
    if t.n == 1:
        return [x]
    head = jax.lax.broadcasted_iota(jnp.int32, x.shape, 1) // t.K
    return [jnp.where(head == h, x, jnp.zeros_like(x)) for h in range(t.n)]


def _visible(query_1l, key_1m, i, j, causal, t):
    """bool [m, l] or what broadcasts to it; None: all."""
    visible = None
    if key_1m is not None:
        key_m1 = jnp.broadcast_to(key_1m, (LANES, t.m)).T[:, :1]
        visible = key_m1 > 0
    if query_1l is not None:
        same = query_1l == (1 if key_1m is None else key_m1)
        visible = same if visible is None else same & visible
    if causal:
        place_m1 = jax.lax.broadcasted_iota(jnp.int32, (t.m, t.l), 0) + j * t.m
        place_1l = jax.lax.broadcasted_iota(jnp.int32, (t.m, t.l), 1) + i * t.l
        earlier = place_m1 <= place_1l
        visible = earlier if visible is None else earlier & visible
    return visible


def _dot(x, y, contract):
    return jax.lax.dot_general(
        x, y, (((contract[0],), (contract[1],)), ((), ())), preferred_element_type=jnp.float32
    )


def _logits(key_mT, query_lT, bias_scr, h, i, j, visible, t):
    x_ml = _dot(key_mT, query_lT, (1, 1))
    if bias_scr is not None:
        x_ml = x_ml + bias_scr[h, j - i + t.L // t.l - 1][: t.m, : t.l]
    if visible is not None:
        x_ml = jnp.where(visible, x_ml, -1e10)
    return x_ml


def _part(ref, at, size):
    return pl.ds(pl.multiple_of(at * size, size), size) if size < ref else slice(None)


def _forward(t, causal, strips_ref, qs_ref, ks_ref, q_ref, k_ref, v_ref, y_ref, ls_ref, bias_scr):
    b, i = pl.program_id(1), pl.program_id(2)
    if bias_scr is not None:
        pl.when((b == 0) & (i == 0))(lambda: _spread(strips_ref, bias_scr, t))
    query = _heads(q_ref[0], t)

    def block(j, carry):
        at = _part(t.M, j, t.m)
        key, value = k_ref[0, at], v_ref[0, at].T
        qs = None if qs_ref is None else qs_ref[0]
        ks = None if ks_ref is None else ks_ref[0, :, at]
        visible = _visible(qs, ks, i, j, causal, t)
        after = []
        for h, (most, total, y) in enumerate(carry):
            x = _logits(key, query[h], bias_scr, h, i, j, visible, t)
            new = jnp.maximum(most, jnp.max(x, axis=0, keepdims=True))
            weight = jnp.exp(x - new)
            old = jnp.exp(most - new)
            total = total * old + jnp.sum(weight, axis=0, keepdims=True)
            mine = value[h * t.K : (h + 1) * t.K]
            y = y * old + _dot(mine, weight.astype(value.dtype), (1, 0))
            after.append((new, total, y))
        return after

    row = jnp.zeros((1, t.l), jnp.float32)
    carry = [(row - jnp.inf, row, jnp.zeros((t.K, t.l), jnp.float32))] * t.n
    carry = _loop(t.M // t.m, block, carry)
    y = jnp.concatenate([y / total for _, total, y in carry], axis=0)
    y_ref[0] = y.T.astype(y_ref.dtype)
    for h, (most, total, _) in enumerate(carry):
        ls_ref[0, 0, h : h + 1] = most + jnp.log(total)


def _loop(n, body, carry):
    return body(0, carry) if n == 1 else jax.lax.fori_loop(0, n, body, carry)


def _backward(
    t,
    causal,
    strips_ref,
    qs_ref,
    ks_ref,
    q_ref,
    k_ref,
    v_ref,
    y_ref,
    ls_ref,
    dy_ref,
    dq_ref,
    dk_ref,
    dv_ref,
    dstrips_ref,
    dq_scr,
    inner_scr,
    bias_scr,
    dbias_scr,
):
    b, j = pl.program_id(1), pl.program_id(2)
    first, last = (b == 0) & (j == 0), (b == pl.num_programs(1) - 1) & (j == pl.num_programs(2) - 1)
    if bias_scr is not None:

        @pl.when(first)
        def _():
            _spread(strips_ref, bias_scr, t)
            dbias_scr[...] = jnp.zeros_like(dbias_scr)

    @pl.when(j == 0)
    def _():
        inner = (dy_ref[0].astype(jnp.float32) * y_ref[0].astype(jnp.float32)).T
        for h in range(t.n):
            inner_scr[h : h + 1] = jnp.sum(inner[h * t.K : (h + 1) * t.K], axis=0, keepdims=True)
        dq_scr[...] = jnp.zeros_like(dq_scr)

    key, value = k_ref[0], v_ref[0]
    key_Tm = key.T

    def block(i, carry):
        dkey, dvalue = carry
        at = _part(t.L, i, t.l)
        query, dy = _heads(q_ref[0, at], t), _heads(dy_ref[0, at], t)
        qs = None if qs_ref is None else qs_ref[0, :, at]
        ks = None if ks_ref is None else ks_ref[0]
        visible = _visible(qs, ks, i, j, causal, t)
        for h in range(t.n):
            x = _logits(key, query[h], bias_scr, h, i, j, visible, t)
            weight = jnp.exp(x - ls_ref[0, 0, h : h + 1, at])
            if visible is not None:
                weight = jnp.where(visible, weight, 0.0)
            dvalue = dvalue + _dot(weight.astype(dy[h].dtype), dy[h], (1, 0))
            dweight = _dot(value, dy[h], (1, 1))
            dx = weight * (dweight - inner_scr[h : h + 1, at])
            if dbias_scr is not None:
                offset = j - i + t.L // t.l - 1
                dbias_scr[h, offset, : t.m, : t.l] += dx
            dx = dx.astype(key.dtype)
            dkey = dkey + _dot(dx, query[h], (1, 0))
            of_h = slice(h * t.K, (h + 1) * t.K)
            dq_scr[of_h, at] += _dot(key_Tm[of_h], dx, (1, 0))
        return dkey, dvalue

    zero = jnp.zeros((t.m, t.T), jnp.float32)
    dkey, dvalue = _loop(t.L // t.l, block, (zero, zero))
    dk_ref[0], dv_ref[0] = dkey.astype(dk_ref.dtype), dvalue.astype(dv_ref.dtype)

    @pl.when(j == pl.num_programs(2) - 1)
    def _():
        dq_ref[0] = dq_scr[...].T.astype(dq_ref.dtype)

    if bias_scr is not None:
        pl.when(last)(lambda: _gathered(dbias_scr, dstrips_ref, t))
