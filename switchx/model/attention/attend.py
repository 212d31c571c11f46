"""softmax(query key + bias) value: one function, in the form that suits where it runs."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from switchx.model.attention import whole
from switchx.model.attention.visibility import Visibility
from switchx.model.remat import kept
from switchx.model.tpu import from_v5_on
from switchx.sharding import LOGICAL_AXES, batch_shards, platform, spec


def attend(
    query_BLHK: jax.Array,
    key_BMHK: jax.Array,
    value_BMHK: jax.Array,
    bias_HW: jax.Array | None,
    visibility: Visibility,
) -> jax.Array:
    """softmax(query key + bias) value, heads joined, [B, L, H K]; the softmax in float32.

    The backward pass computes the weights again from their log-sum-exp (Dao et al. 2022,
    FlashAttention, algorithm 4): keeping them costs more than the product.

    Args:
      bias_HW: float32 [H, L+M-1], the bias of each diagonal, see RelativePositionBias.
    """
    kernels, K = _kernels(query_BLHK, key_BMHK, bias_HW), query_BLHK.shape[-1]
    if kernels is None:
        return _by_whole_arrays(K, query_BLHK, key_BMHK, value_BMHK, bias_HW, visibility)
    # Heads joined, as the projections leave them and a TPU's kernels read them: a loop over layers,
    # and the borders of a device's share, would turn arrays of heads in memory.
    rows = map(_joined, (query_BLHK, key_BMHK, value_BMHK))
    return _by_kernels(kernels, K, *rows, bias_HW, visibility)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _by_whole_arrays(K: int, *operands: Any) -> jax.Array:
    return _joined(whole.forward(*operands)[0])


def _whole_fwd(K: int, *operands: Any) -> tuple[jax.Array, Any]:
    y_BLHK, log_sum = whole.forward(*operands)
    y_BLT = _joined(y_BLHK)
    return y_BLT, (*operands, y_BLT, log_sum)


def _whole_bwd(K: int, residuals: Any, dy_BLT: jax.Array) -> tuple[jax.Array | None, ...]:
    *operands, y_BLT, log_sum = residuals
    known = *operands, _apart(y_BLT, K), log_sum, _apart(dy_BLT, K)
    return *whole.backward(*known), None


_by_whole_arrays.defvjp(_whole_fwd, _whole_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _by_kernels(kernels: Any, K: int, *operands: Any) -> jax.Array:
    """[B, L, H K]; `operands`: as of `attend`, heads joined; `kernels`: see `_kernels`."""
    return _kernels_fwd(kernels, K, *operands)[0]


def _kernels_fwd(kernels: Any, K: int, *operands: Any) -> tuple[jax.Array, Any]:
    def forward(*share: Any) -> tuple[jax.Array, jax.Array]:
        y_BLHK, log_sum = kernels.forward(*_share_apart(share, K))
        return _joined(y_BLHK), log_sum

    y_BLT, log_sum = map(kept, _on_each_device(forward, operands, _OF_FORWARD))
    query_BLT, *keys_values, bias_HW, visibility = operands
    if query_BLT.shape[1] != keys_values[0].shape[1]:
        # Of the encoder's tokens, kept by the decoder's loop: XLA's TPU compiler fills what a loop
        # keeps with zeros first, where another loop, the encoder's, keeps arrays of the same shape.
        keys_values = [x_BMT.reshape(-1, x_BMT.shape[-1]) for x_BMT in keys_values]
    return y_BLT, (query_BLT, *keys_values, bias_HW, visibility, y_BLT, log_sum)


def _kernels_bwd(
    kernels: Any, K: int, residuals: Any, dy_BLT: jax.Array
) -> tuple[jax.Array | None, ...]:
    def backward(*share: Any) -> tuple[jax.Array | None, ...]:
        *grads, dbias_HW = kernels.backward(*_share_apart(share, K))
        if dbias_HW is not None and not jax.sharding.get_abstract_mesh().empty:
            dbias_HW = jax.lax.psum(dbias_HW, LOGICAL_AXES["batch"])
        return *map(_joined, grads), dbias_HW

    query_BLT, *keys_values, bias_HW, visibility, y_BLT, log_sum = residuals
    B, _, T = dy_BLT.shape
    keys_values = [x.reshape(B, -1, T) for x in keys_values]
    operands = query_BLT, *keys_values, bias_HW, visibility, y_BLT, log_sum, dy_BLT
    return *_on_each_device(backward, operands, _OF_BACKWARD), None


_by_kernels.defvjp(_kernels_fwd, _kernels_bwd)


def _joined(x_BLHK: jax.Array) -> jax.Array:
    return x_BLHK.reshape(*x_BLHK.shape[:2], -1)


def _apart(x_BLT: jax.Array, K: int) -> jax.Array:
    return x_BLT.reshape(*x_BLT.shape[:2], -1, K)


def _share_apart(share: tuple, K: int) -> list:
    """A device's operands, heads apart."""
    pairs = zip(share, _OF_OPERANDS, strict=False)
    return [_apart(x, K) if own is _ROWS else x for x, own in pairs]


def _kernels(query_BLHK: jax.Array, key_BMHK: jax.Array, bias_HW: jax.Array | None) -> Any:
    """The platform's kernels, if they can cut up these shapes; None: by whole arrays."""
    B, L, H, K = query_BLHK.shape
    mesh = jax.sharding.get_abstract_mesh()
    heads = mesh.shape.get("model", 1)
    if B % batch_shards(mesh) or H % heads:
        return None
    if platform() == "gpu":
        from switchx.model.attention import triton

        return triton if triton.fits(K) else None
    if not from_v5_on():
        return None
    from switchx.model.attention import blocked

    fits = blocked.fits(H // heads, L, key_BMHK.shape[1], K, bias_HW is not None)
    return blocked if fits else None


_ROWS, _BIAS = spec("batch", None, "heads"), spec("heads", None)
_LOG_SUM = spec("batch", "heads", None, None)
_OF_OPERANDS = (_ROWS, _ROWS, _ROWS, _BIAS, spec("batch", None), _ROWS, _LOG_SUM, _ROWS)
_OF_FORWARD = (_ROWS, _LOG_SUM)
_OF_BACKWARD = (_ROWS, _ROWS, _ROWS, _BIAS)


def _on_each_device(form: Callable, operands: tuple, out_specs: tuple) -> Any:
    """Each device's rows and heads; the compiler shares out no kernel by itself."""
    if jax.sharding.get_abstract_mesh().empty:
        return form(*operands)
    return jax.shard_map(
        form, in_specs=_OF_OPERANDS[: len(operands)], out_specs=out_specs, check_vma=False
    )(*operands)
