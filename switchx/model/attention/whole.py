"""softmax(query key + bias) value, and its gradients, by whole [B, H, L, M] arrays."""

import jax
import jax.numpy as jnp

from switchx.model.attention.bias import toeplitz
from switchx.model.attention.visibility import Visibility
from switchx.sharding import platform


def forward(
    query_BLHK: jax.Array,
    key_BMHK: jax.Array,
    value_BMHK: jax.Array,
    bias_HW: jax.Array | None,
    visibility: Visibility,
) -> tuple[jax.Array, jax.Array]:
    """[B, L, H, K], and each query's log-sum-exp, [B, H, L, 1]."""
    mask_BLM = visibility.mask(query_BLHK.shape[1], key_BMHK.shape[1])
    logits_BHLM = _logits(query_BLHK, key_BMHK, bias_HW)
    return weighted(logits_BHLM, mask_BLM, value_BMHK, "bhlm,bmhk->blhk")


def backward(
    query_BLHK: jax.Array,
    key_BMHK: jax.Array,
    value_BMHK: jax.Array,
    bias_HW: jax.Array | None,
    visibility: Visibility,
    y_BLHK: jax.Array,
    log_sum_BHL1: jax.Array,
    dy_BLHK: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | None]:
    """The gradients of queries, keys, values and bias_HW from what `forward` took and gave."""
    dtype = query_BLHK.dtype
    mask_BLM = visibility.mask(query_BLHK.shape[1], key_BMHK.shape[1])
    logits_BHLM = _masked(_logits(query_BLHK, key_BMHK, bias_HW), mask_BLM)
    # Masked again: where a row sees nothing, its log-sum-exp is too large to hold the sum.
    weight_BHLM = jnp.where(mask_BLM[:, None], jnp.exp(logits_BHLM - log_sum_BHL1), 0.0)
    dvalue_BMHK = jnp.einsum("bhlm,blhk->bmhk", weight_BHLM.astype(dtype), dy_BLHK)
    dweight_BHLM = jnp.einsum(
        "blhk,bmhk->bhlm", dy_BLHK, value_BMHK, preferred_element_type=jnp.float32
    )
    inner_BLH = jnp.sum(dy_BLHK.astype(jnp.float32) * y_BLHK.astype(jnp.float32), axis=-1)
    inner_BHL1 = inner_BLH.swapaxes(1, 2)[..., None]
    dlogits_BHLM = weight_BHLM * (dweight_BHLM - inner_BHL1)
    dbias_HW = None if bias_HW is None else _dbias(dlogits_BHLM, bias_HW)
    dlogits_BHLM = dlogits_BHLM.astype(dtype)
    dquery_BLHK = jnp.einsum("bhlm,bmhk->blhk", dlogits_BHLM, key_BMHK)
    dkey_BMHK = jnp.einsum("bhlm,blhk->bmhk", dlogits_BHLM, query_BLHK)
    return dquery_BLHK, dkey_BMHK, dvalue_BMHK, dbias_HW


def _dbias(dlogits_BHLM: jax.Array, bias_HW: jax.Array) -> jax.Array:
    """Sums over rows and diagonals."""
    if platform() == "cpu":
        # A product with ones: XLA's CPU sum over the leading dimension is ten times slower.
        ones_B = jnp.ones(dlogits_BHLM.shape[0], jnp.float32)
        highest = jax.lax.Precision.HIGHEST
        dbias_HLM = jnp.einsum("b,bhlm->hlm", ones_B, dlogits_BHLM, precision=highest)
    else:
        dbias_HLM = jnp.sum(dlogits_BHLM, axis=0)
    L, M = dlogits_BHLM.shape[2:]
    (dbias_HW,) = jax.linear_transpose(lambda x_HW: toeplitz(x_HW, L, M), bias_HW)(dbias_HLM)
    return dbias_HW


def _logits(query_BLHK: jax.Array, key_BMHK: jax.Array, bias_HW: jax.Array | None) -> jax.Array:
    logits_BHLM = jnp.einsum(
        "blhk,bmhk->bhlm", query_BLHK, key_BMHK, preferred_element_type=jnp.float32
    )
    if bias_HW is None:
        return logits_BHLM
    return logits_BHLM + toeplitz(bias_HW, *logits_BHLM.shape[2:])


def _masked(logits_BHLM: jax.Array, mask_BLM: jax.Array) -> jax.Array:
    # A finite value: a row that sees nothing then averages instead of turning into NaN.
    return jnp.where(mask_BLM[:, None], logits_BHLM, -1e10)


def weighted(
    logits_BHLM: jax.Array, mask_BLM: jax.Array, value: jax.Array, equation: str
) -> tuple[jax.Array, jax.Array]:
    """The values' mean by the softmax of what is not masked, [B, L, H, K], and its log-sum-exp."""
    logits_BHLM = _masked(logits_BHLM, mask_BLM)
    max_BHL1 = jnp.max(logits_BHLM, axis=-1, keepdims=True)
    weight_BHLM = jnp.exp(logits_BHLM - max_BHL1)
    sum_BHL1 = jnp.sum(weight_BHLM, axis=-1, keepdims=True)
    y_BLHK = jnp.einsum(
        equation, weight_BHLM.astype(value.dtype), value, preferred_element_type=jnp.float32
    )
    y_BLHK = (y_BLHK / sum_BHL1.swapaxes(1, 2)).astype(value.dtype)
    return y_BLHK, max_BHL1 + jnp.log(sum_BHL1)
