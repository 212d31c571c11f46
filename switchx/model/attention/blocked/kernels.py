"""What one program does: a few heads of one row of the batch.

Its heads lie side by side in the lanes of a vector, as the projections leave them. Of a product
with one head the others' lanes are zeroed, which costs nothing: the matrix unit is as wide.
Logits are [keys, queries]: what belongs to a query, such as its maximum, then lies along the
lanes, and is found without moving anything between them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from switchx.model.attention.blocked import strips
from switchx.model.attention.blocked.tiles import LANES, Tiles

_HIDDEN = -1e10  # the logit of what a query does not see


class Given(NamedTuple):
    """What both kernels read; None where there is no bias, or nothing to tell segments apart."""

    strips: Any
    query_segment: Any
    key_segment: Any
    query: Any
    key: Any
    value: Any


def forward(
    t: Tiles, causal: bool, given: Given, y_ref: Any, log_sum_ref: Any, bias_ref: Any
) -> None:
    """A block of queries against all keys, block by block (FlashAttention, algorithm 2).

    Causal, against those blocks of keys alone that some of its queries see.
    """
    i = pl.program_id(2)
    if bias_ref is not None:
        first = (pl.program_id(1) == 0) & (i == 0)
        pl.when(first)(lambda: strips.spread(given.strips, bias_ref, t))
    queries = _each_head(given.query[0], t)

    def block(j: Any, carry: list) -> list:
        at = _block(j, t.m, t.M)
        key, value_Tm = given.key[0, at], given.value[0, at].T
        visible = _visible(given, slice(None), at, i, j, causal, t)
        after = []
        for h, (most, total, y) in enumerate(carry):
            logits = _logits(key, queries[h], bias_ref, h, i, j, visible, t)
            new = jnp.maximum(most, jnp.max(logits, axis=0, keepdims=True))
            weight, shrunk = jnp.exp(logits - new), jnp.exp(most - new)
            total = total * shrunk + jnp.sum(weight, axis=0, keepdims=True)
            of_h = slice(h * t.K, (h + 1) * t.K)
            y = y * shrunk + _dot(value_Tm[of_h], weight.astype(value_Tm.dtype), 1, 0)
            after.append((new, total, y))
        return after

    row = jnp.zeros((1, t.l), jnp.float32)
    begin = (row - jnp.inf, row, jnp.zeros((t.K, t.l), jnp.float32))
    end: Any = t.key_blocks
    if causal:
        end = jnp.minimum(jax.lax.div((i + 1) * t.l - 1, t.m) + 1, end)
    heads = _loop(0, end, t.key_blocks, block, [begin] * t.n)
    y_Tl = jnp.concatenate([y / total for _, total, y in heads], axis=0)
    if causal and t.key_blocks > 1:
        y_Tl = _mean_if_nobody(y_Tl, [most for most, *_ in heads], given.value[0], t)
    y_ref[0] = y_Tl.T.astype(y_ref.dtype)
    for h, (most, total, _) in enumerate(heads):
        log_sum_ref[0, 0, h : h + 1] = most + jnp.log(total)


def backward(
    t: Tiles,
    causal: bool,
    given: Given,
    y_ref: Any,
    log_sum_ref: Any,
    dy_ref: Any,
    dquery_ref: Any,
    dkey_ref: Any,
    dvalue_ref: Any,
    dstrips_ref: Any,
    dquery_Tl: Any,
    inner: Any,
    bias_ref: Any,
    dbias_ref: Any,
) -> None:
    """A block of keys against all queries (FlashAttention, algorithm 4).

    The queries' gradients are summed over blocks of keys in `dquery_Tl`, those of the bias over
    rows of the batch too; `inner` holds each query's sum of y dy.
    """
    b, j = pl.program_id(1), pl.program_id(2)
    of_heads = [slice(h * t.K, (h + 1) * t.K) for h in range(t.n)]

    @pl.when(j == 0)
    def begin_row() -> None:
        product_TL = (dy_ref[0].astype(jnp.float32) * y_ref[0].astype(jnp.float32)).T
        for h, of_h in enumerate(of_heads):
            inner[h : h + 1] = jnp.sum(product_TL[of_h], axis=0, keepdims=True)
        dquery_Tl[...] = jnp.zeros_like(dquery_Tl)

    if bias_ref is not None:

        @pl.when((b == 0) & (j == 0))
        def begin_heads() -> None:
            strips.spread(given.strips, bias_ref, t)
            dbias_ref[...] = jnp.zeros_like(dbias_ref)

    key, value = given.key[0], given.value[0]
    key_Tm = key.T

    def block(i: Any, carry: tuple) -> tuple:
        dkey, dvalue = carry
        at = _block(i, t.l, t.L)
        queries, dys = _each_head(given.query[0, at], t), _each_head(dy_ref[0, at], t)
        visible = _visible(given, at, slice(None), i, j, causal, t)
        for h, of_h in enumerate(of_heads):
            logits = _logits(key, queries[h], bias_ref, h, i, j, visible, t)
            weight = jnp.exp(logits - log_sum_ref[0, 0, h : h + 1, at])
            if visible is not None:  # again: see the form of whole arrays
                weight = jnp.where(visible, weight, 0.0)
            dvalue = dvalue + _dot(weight.astype(value.dtype), dys[h], 1, 0)
            dlogits = weight * (_dot(value, dys[h], 1, 1) - inner[h : h + 1, at])
            if dbias_ref is not None:
                dbias_ref[h, j - i + t.query_blocks - 1, : t.m, : t.l] += dlogits
            dlogits = dlogits.astype(key.dtype)
            dkey = dkey + _dot(dlogits, queries[h], 1, 0)
            dquery_Tl[of_h, at] += _dot(key_Tm[of_h], dlogits, 1, 0)
        return dkey, dvalue

    zero = jnp.zeros((t.m, t.width), jnp.float32)
    begin = jax.lax.div(j * t.m, t.l) if causal else 0  # the first queries that see some of these
    dkey, dvalue = _loop(begin, t.query_blocks, t.query_blocks, block, (zero, zero))
    dkey_ref[0], dvalue_ref[0] = dkey.astype(dkey_ref.dtype), dvalue.astype(dvalue_ref.dtype)

    @pl.when(j == t.key_blocks - 1)
    def end_row() -> None:
        dquery_ref[0] = dquery_Tl[...].T.astype(dquery_ref.dtype)

    if bias_ref is not None:
        last = (b == pl.num_programs(1) - 1) & (j == t.key_blocks - 1)
        pl.when(last)(lambda: strips.gather(dbias_ref, dstrips_ref, t))


def _loop(begin: Any, end: Any, number: int, body: Callable, carry: Any) -> Any:
    """Over blocks begin to end of `number`."""
    return body(0, carry) if number == 1 else jax.lax.fori_loop(begin, end, body, carry)


def _mean_if_nobody(y_Tl: jax.Array, most: list[jax.Array], value_MT: jax.Array, t: Tiles) -> Any:
    """Queries that see nobody weigh all keys alike, as by whole arrays, blocks left out too."""
    mean_1T = jnp.mean(value_MT.astype(jnp.float32), axis=0, keepdims=True)
    mean_T1 = jnp.broadcast_to(mean_1T, (LANES, t.width)).T[:, :1]
    most_Tl = jnp.concatenate([jnp.broadcast_to(x_1l, (t.K, t.l)) for x_1l in most], axis=0)
    return jnp.where(most_Tl > _HIDDEN / 2, y_Tl, mean_T1)


def _block(number: Any, size: int, whole: int) -> Any:
    if size == whole:
        return slice(None)
    return pl.ds(pl.multiple_of(number * size, size), size)


def _each_head(x_lT: jax.Array, t: Tiles) -> list[jax.Array]:
    """Each head's part, beside zeros where the others' is."""
    if t.n == 1:
        return [x_lT]
    head = jax.lax.broadcasted_iota(jnp.int32, x_lT.shape, 1) // t.K
    return [jnp.where(head == h, x_lT, jnp.zeros_like(x_lT)) for h in range(t.n)]


def _logits(
    key_mT: jax.Array,
    query_lT: jax.Array,
    bias_ref: Any,
    h: int,
    i: Any,
    j: Any,
    visible: jax.Array | None,
    t: Tiles,
) -> jax.Array:
    """float32 [m, l], as of whole.py, of key block j and query block i."""
    logits = _dot(key_mT, query_lT, 1, 1)
    if bias_ref is not None:
        logits = logits + bias_ref[h, j - i + t.query_blocks - 1, : t.m, : t.l]
    return logits if visible is None else jnp.where(visible, logits, _HIDDEN)


def _visible(
    given: Given, query_at: Any, key_at: Any, i: Any, j: Any, causal: bool, t: Tiles
) -> jax.Array | None:
    """bool [m, l], or what broadcasts to it: see Visibility; None: everything."""
    key_m1, conditions = None, []
    if given.key_segment is not None:
        key_m1 = jnp.broadcast_to(given.key_segment[0, :, key_at], (LANES, t.m)).T[:, :1]
        conditions.append(key_m1 > 0)
    if given.query_segment is not None:
        query_1l = given.query_segment[0, :, query_at]
        conditions.append(query_1l == (1 if key_m1 is None else key_m1))
    if causal:
        key_place = jax.lax.broadcasted_iota(jnp.int32, (t.m, t.l), 0) + j * t.m
        query_place = jax.lax.broadcasted_iota(jnp.int32, (t.m, t.l), 1) + i * t.l
        conditions.append(key_place <= query_place)
    visible = None
    for each in conditions:
        visible = each if visible is None else visible & each
    return visible


def _dot(x: jax.Array, y: jax.Array, x_axis: int, y_axis: int) -> jax.Array:
    dimensions = (((x_axis,), (y_axis,)), ((), ()))
    return jax.lax.dot_general(x, y, dimensions, preferred_element_type=jnp.float32)
