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
    logits_BHLM = _logits(query_BLHK, _turned(key_BMHK), bias_HW)
    y_BHLK, log_sum_BHL1 = weighted(logits_BHLM, mask_BLM, _turned(value_BMHK), "bhlm,bhkm->bhlk")
    return _held(y_BHLK).swapaxes(1, 2), log_sum_BHL1


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
    key_BHKM, value_BHKM = _turned(key_BMHK), _turned(value_BMHK)
    query_BHKL, dy_BHKL = _turned(query_BLHK), _turned(dy_BLHK)
    logits_BHLM = _masked(_logits(query_BLHK, key_BHKM, bias_HW), mask_BLM)
    # Masked again: where a row sees nothing, its log-sum-exp is too large to hold the sum.
    weight_BHLM = jnp.where(mask_BLM[:, None], jnp.exp(logits_BHLM - log_sum_BHL1), 0.0)
    dvalue_BHKM = jnp.einsum("bhkl,bhlm->bhkm", dy_BHKL, weight_BHLM.astype(dtype))
    dweight_BHLM = jnp.einsum(
        "blhk,bhkm->bhlm", dy_BLHK, value_BHKM, preferred_element_type=jnp.float32
    )
    inner_BLH = jnp.sum(dy_BLHK.astype(jnp.float32) * y_BLHK.astype(jnp.float32), axis=-1)
    inner_BHL1 = inner_BLH.swapaxes(1, 2)[..., None]
    dlogits_BHLM = weight_BHLM * (dweight_BHLM - inner_BHL1)
    dbias_HW = None if bias_HW is None else _dbias(dlogits_BHLM, bias_HW)
    dlogits_BHLM = dlogits_BHLM.astype(dtype)
    dquery_BHLK = jnp.einsum("bhlm,bhkm->bhlk", dlogits_BHLM, key_BHKM)
    dkey_BHKM = jnp.einsum("bhkl,bhlm->bhkm", query_BHKL, dlogits_BHLM)
    dquery_BLHK = _held(dquery_BHLK).swapaxes(1, 2)
    dkey_BMHK, dvalue_BMHK = (_held(x).transpose(0, 3, 1, 2) for x in (dkey_BHKM, dvalue_BHKM))
    return dquery_BLHK, dkey_BMHK, dvalue_BMHK, dbias_HW


def _turned(x_BMHK: jax.Array) -> jax.Array:
    """[B, H, K, M]: on a CPU the products are fastest whose small arrays lie like this."""
    return _held(x_BMHK.transpose(0, 2, 3, 1))


def _held(x: jax.Array) -> jax.Array:
    """The same; on a CPU it lies in memory in this order, whatever is computed of it next."""
    return jax.lax.optimization_barrier(x) if platform() == "cpu" else x


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


def _logits(query_BLHK: jax.Array, key_BHKM: jax.Array, bias_HW: jax.Array | None) -> jax.Array:
    logits_BHLM = jnp.einsum(
        "blhk,bhkm->bhlm", query_BLHK, key_BHKM, preferred_element_type=jnp.float32
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
    """The values' mean by the softmax of what is not masked, [B, H, L, K], and its log-sum-exp.

    `equation`: of the product of weights [B, H, L, M] and values.
    """
    logits_BHLM = _masked(logits_BHLM, mask_BLM)
    max_BHL1 = jnp.max(logits_BHLM, axis=-1, keepdims=True)
    weight_BHLM = jnp.exp(logits_BHLM - max_BHL1)
    sum_BHL1 = jnp.sum(weight_BHLM, axis=-1, keepdims=True)
    y_BHLK = jnp.einsum(
        equation, weight_BHLM.astype(value.dtype), value, preferred_element_type=jnp.float32
    )
    y_BHLK = (y_BHLK / sum_BHL1).astype(value.dtype)
    return y_BHLK, max_BHL1 + jnp.log(sum_BHL1)
