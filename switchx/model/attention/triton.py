"""softmax(query key + bias) value, and its gradients, by blocks, on NVIDIA GPUs.

Kernels of Pallas and Triton after FlashAttention 2 (Dao 2023, algorithms 1 and 2): a program holds
one block of queries (or of keys) of one head and row, and goes through the blocks of keys (of
queries). The bias is read from its diagonals, which the first cache holds. Its gradient is summed
over the rows of the batch by a kernel of its own, one block of pairs a program: atomic additions
would make a step's last digits a matter of chance.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from switchx.model.attention.bias import toeplitz
from switchx.model.attention.visibility import Visibility
from switchx.model.product import precision_in_force
from switchx.sharding import platform

# Queries and keys of a block. Compiled for an H100; no GPU has run it yet.
_QUERIES, _KEYS = 128, 64
_WIDTHS = (16, 32, 64, 128)


def fits(K: int) -> bool:
    """Whether heads of width K can be cut up."""
    return K in _WIDTHS


def forward(
    query_BLHK: jax.Array,
    key_BMHK: jax.Array,
    value_BMHK: jax.Array,
    bias_HW: jax.Array | None,
    visibility: Visibility,
) -> tuple[jax.Array, jax.Array]:
    """[B, L, H, K], and each query's log-sum-exp, float32 [B, H, 1, L]."""
    B, L, H, _ = query_BLHK.shape
    given = _Given.of(query_BLHK, key_BMHK, value_BMHK, bias_HW, visibility)
    log_sum_BHL = jax.ShapeDtypeStruct((B, H, L), jnp.float32)
    grid = (pl.cdiv(L, _QUERIES), H, B)
    call = _call(_forward, visibility, grid, given, products=2)
    y_BLHK, log_sum_BHL = call(out_shape=(_like(query_BLHK), log_sum_BHL))(given)
    return y_BLHK, log_sum_BHL[:, :, None]


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
    (B, L, H, _), M = query_BLHK.shape, key_BMHK.shape[1]
    inner_BLH = jnp.sum(dy_BLHK.astype(jnp.float32) * y_BLHK.astype(jnp.float32), axis=-1)
    given = _Given.of(
        query_BLHK, key_BMHK, value_BMHK, bias_HW, visibility, dy_BLHK, log_sum[:, :, 0], inner_BLH
    )
    queries, keys = pl.cdiv(L, _QUERIES), pl.cdiv(M, _KEYS)
    call = functools.partial(_call, visibility=visibility, given=given)
    of_queries = call(_backward_queries, grid=(queries, H, B), products=3)
    of_keys = call(_backward_keys, grid=(keys, H, B), products=4)
    dquery_BLHK = of_queries(out_shape=_like(query_BLHK))(given)
    dkey_BMHK, dvalue_BMHK = of_keys(out_shape=(_like(key_BMHK), _like(value_BMHK)))(given)
    if bias_HW is None:
        return dquery_BLHK, dkey_BMHK, dvalue_BMHK, None
    of_bias = call(_backward_bias, grid=(keys, queries, H), products=2)
    dbias_HLM = of_bias(out_shape=jax.ShapeDtypeStruct((H, L, M), jnp.float32))(given)
    (dbias_HW,) = jax.linear_transpose(lambda x_HW: toeplitz(x_HW, L, M), bias_HW)(dbias_HLM)
    return dquery_BLHK, dkey_BMHK, dvalue_BMHK, dbias_HW


class _Given(NamedTuple):
    """What kernels read; None where there is none of it."""

    query_BLHK: Any
    key_BMHK: Any
    value_BMHK: Any
    bias_HW: Any
    query_BL: Any
    key_BM: Any
    dy_BLHK: Any = None
    log_sum_BHL: Any = None
    inner_BLH: Any = None

    @classmethod
    def of(
        cls,
        query_BLHK: jax.Array,
        key_BMHK: jax.Array,
        value_BMHK: jax.Array,
        bias_HW: jax.Array | None,
        visibility: Visibility,
        *of_backward: jax.Array,
    ) -> "_Given":
        segments = visibility.query_BL, visibility.key_BM
        return cls(query_BLHK, key_BMHK, value_BMHK, bias_HW, *segments, *of_backward)


def _like(x: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def _call(
    kernel: Any,
    visibility: Visibility,
    grid: tuple[int, ...],
    given: _Given,
    products: int,
) -> Any:
    """The kernel, to be told the shapes of its results; `products`: of the size of the logits."""
    (B, L, H, K), M = given.query_BLHK.shape, given.key_BMHK.shape[1]
    dot = functools.partial(plgpu.dot, precision=precision_in_force())
    moved = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(given))
    return functools.partial(
        pl.pallas_call,
        functools.partial(kernel, dot, visibility.causal),
        grid=grid,
        compiler_params=plgpu.CompilerParams(num_warps=8, num_stages=2),
        cost_estimate=pl.CostEstimate(2 * products * B * H * L * M * K, B * H * L * M, moved),
        interpret=platform() != "gpu",
        name=f"attention{kernel.__name__}",
    )


class _Block(NamedTuple):
    """Which queries and keys of which head and row."""

    b: Any
    h: Any
    first_query: Any
    first_key: Any

    @property
    def query_l(self) -> jax.Array:
        return self.first_query + jnp.arange(_QUERIES)

    @property
    def key_m(self) -> jax.Array:
        return self.first_key + jnp.arange(_KEYS)


def _rows(x_BLHK: Any, at: _Block, first: Any, number: int) -> jax.Array:
    """[number, K] of one head and row from `first` on; zeros beyond the last."""
    there = (first + jnp.arange(number) < x_BLHK.shape[1])[:, None]
    whole = pl.ds(0, x_BLHK.shape[3])
    return plgpu.load(x_BLHK.at[at.b, pl.ds(first, number), at.h, whole], mask=there, other=0)


def _logits(dot: Any, causal: bool, given: _Given, at: _Block, query_lK: Any) -> tuple[Any, Any]:
    """float32 [l, m], as of whole.py, and what is visible; -inf beyond the last key."""
    L, M = given.query_BLHK.shape[1], given.key_BMHK.shape[1]
    query_l1, key_1m = at.query_l[:, None], at.key_m[None, :]
    logits = dot(query_lK, _rows(given.key_BMHK, at, at.first_key, _KEYS), trans_b=True)
    there = (query_l1 < L) & (key_1m < M)
    if given.bias_HW is not None:
        diagonal = L - 1 - query_l1 + key_1m
        logits = logits + plgpu.load(given.bias_HW.at[at.h, diagonal], mask=there, other=0)
    visible = there
    if causal:
        visible = visible & (key_1m <= query_l1)
    if given.key_BM is not None:
        there_m = at.key_m < M
        key = plgpu.load(given.key_BM.at[at.b, pl.ds(at.first_key, _KEYS)], mask=there_m, other=0)
        visible = visible & (key > 0)[None, :]
    if given.query_BL is not None:
        there_l = at.query_l < L
        rows = pl.ds(at.first_query, _QUERIES)
        query = plgpu.load(given.query_BL.at[at.b, rows], mask=there_l, other=0)
        visible = visible & (query[:, None] == (1 if given.key_BM is None else key[None, :]))
    return jnp.where(visible, logits, jnp.where(key_1m < M, -1e10, -jnp.inf)), visible


def _forward(dot: Any, causal: bool, given: _Given, y_BLHK: Any, log_sum_BHL: Any) -> None:
    M, L, K = given.key_BMHK.shape[1], y_BLHK.shape[1], y_BLHK.shape[3]
    first, h, b = pl.program_id(0) * _QUERIES, pl.program_id(1), pl.program_id(2)
    query_lK = _rows(given.query_BLHK, _Block(b, h, first, 0), first, _QUERIES)

    def block(j: Any, carry: tuple) -> tuple:
        most_l, total_l, y_lK = carry
        at = _Block(b, h, first, j * _KEYS)
        logits, _ = _logits(dot, causal, given, at, query_lK)
        new_l = jnp.maximum(most_l, jnp.max(logits, axis=1))
        weight, shrunk_l = jnp.exp(logits - new_l[:, None]), jnp.exp(most_l - new_l)
        value_mK = _rows(given.value_BMHK, at, at.first_key, _KEYS)
        y_lK = y_lK * shrunk_l[:, None] + dot(weight.astype(value_mK.dtype), value_mK)
        return new_l, total_l * shrunk_l + jnp.sum(weight, axis=1), y_lK

    zero_l = jnp.zeros((_QUERIES,), jnp.float32)
    begin = (zero_l - jnp.inf, zero_l, jnp.zeros((_QUERIES, K), jnp.float32))
    most_l, total_l, y_lK = jax.lax.fori_loop(0, pl.cdiv(M, _KEYS), block, begin)
    _store(y_BLHK, b, first, h, y_lK / total_l[:, None])
    there_l = first + jnp.arange(_QUERIES) < L
    at_l = log_sum_BHL.at[b, h, pl.ds(first, _QUERIES)]
    plgpu.store(at_l, most_l + jnp.log(total_l), mask=there_l)


def _store(x_BLHK: Any, b: Any, first: Any, h: Any, value: jax.Array) -> None:
    there = (first + jnp.arange(value.shape[0]) < x_BLHK.shape[1])[:, None]
    at = x_BLHK.at[b, pl.ds(first, value.shape[0]), h, pl.ds(0, x_BLHK.shape[3])]
    plgpu.store(at, value.astype(x_BLHK.dtype), mask=there)


def _dlogits(dot: Any, causal: bool, given: _Given, at: _Block, query_lK: Any, dy_lK: Any) -> tuple:
    """The weights and the gradients of the logits, float32 [l, m]."""
    logits, visible = _logits(dot, causal, given, at, query_lK)
    there_l = at.query_l < given.query_BLHK.shape[1]
    rows = pl.ds(at.first_query, _QUERIES)
    log_sum_l = plgpu.load(given.log_sum_BHL.at[at.b, at.h, rows], mask=there_l, other=0)
    inner_l = plgpu.load(given.inner_BLH.at[at.b, rows, at.h], mask=there_l, other=0)
    # Masked again: where a row sees nothing, its log-sum-exp is too large to hold the sum.
    weight = jnp.where(visible, jnp.exp(logits - log_sum_l[:, None]), 0.0)
    value_mK = _rows(given.value_BMHK, at, at.first_key, _KEYS)
    return weight, weight * (dot(dy_lK, value_mK, trans_b=True) - inner_l[:, None])


def _backward_queries(dot: Any, causal: bool, given: _Given, dquery_BLHK: Any) -> None:
    M, K = given.key_BMHK.shape[1], dquery_BLHK.shape[3]
    first, h, b = pl.program_id(0) * _QUERIES, pl.program_id(1), pl.program_id(2)
    query_lK = _rows(given.query_BLHK, _Block(b, h, first, 0), first, _QUERIES)
    dy_lK = _rows(given.dy_BLHK, _Block(b, h, first, 0), first, _QUERIES)

    def block(j: Any, dquery_lK: jax.Array) -> jax.Array:
        at = _Block(b, h, first, j * _KEYS)
        _, dlogits = _dlogits(dot, causal, given, at, query_lK, dy_lK)
        key_mK = _rows(given.key_BMHK, at, at.first_key, _KEYS)
        return dquery_lK + dot(dlogits.astype(key_mK.dtype), key_mK)

    zero_lK = jnp.zeros((_QUERIES, K), jnp.float32)
    _store(dquery_BLHK, b, first, h, jax.lax.fori_loop(0, pl.cdiv(M, _KEYS), block, zero_lK))


def _backward_keys(dot: Any, causal: bool, given: _Given, dkey_BMHK: Any, dvalue_BMHK: Any) -> None:
    L, K = given.query_BLHK.shape[1], dkey_BMHK.shape[3]
    first, h, b = pl.program_id(0) * _KEYS, pl.program_id(1), pl.program_id(2)

    def block(i: Any, carry: tuple) -> tuple:
        dkey_mK, dvalue_mK = carry
        at = _Block(b, h, i * _QUERIES, first)
        query_lK = _rows(given.query_BLHK, at, at.first_query, _QUERIES)
        dy_lK = _rows(given.dy_BLHK, at, at.first_query, _QUERIES)
        weight, dlogits = _dlogits(dot, causal, given, at, query_lK, dy_lK)
        dvalue_mK = dvalue_mK + dot(weight.astype(dy_lK.dtype), dy_lK, trans_a=True)
        return dkey_mK + dot(dlogits.astype(query_lK.dtype), query_lK, trans_a=True), dvalue_mK

    zero_mK = jnp.zeros((_KEYS, K), jnp.float32)
    grads = jax.lax.fori_loop(0, pl.cdiv(L, _QUERIES), block, (zero_mK, zero_mK))
    _store(dkey_BMHK, b, first, h, grads[0])
    _store(dvalue_BMHK, b, first, h, grads[1])


def _backward_bias(dot: Any, causal: bool, given: _Given, dbias_HLM: Any) -> None:
    B, (_, L, M) = given.query_BLHK.shape[0], dbias_HLM.shape
    first_key, first_query = pl.program_id(0) * _KEYS, pl.program_id(1) * _QUERIES
    h = pl.program_id(2)

    def row(b: Any, dbias_lm: jax.Array) -> jax.Array:
        at = _Block(b, h, first_query, first_key)
        query_lK = _rows(given.query_BLHK, at, first_query, _QUERIES)
        dy_lK = _rows(given.dy_BLHK, at, first_query, _QUERIES)
        return dbias_lm + _dlogits(dot, causal, given, at, query_lK, dy_lK)[1]

    dbias_lm = jax.lax.fori_loop(0, B, row, jnp.zeros((_QUERIES, _KEYS), jnp.float32))
    there = (first_query + jnp.arange(_QUERIES) < L)[:, None]
    there = there & (first_key + jnp.arange(_KEYS) < M)[None, :]
    at_lm = dbias_HLM.at[h, pl.ds(first_query, _QUERIES), pl.ds(first_key, _KEYS)]
    plgpu.store(at_lm, dbias_lm, mask=there)
