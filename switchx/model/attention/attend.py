"""softmax(query key + bias) value: one function, in the form that suits where it runs."""

from collections.abc import Callable
from typing import Any

import jax

from switchx.model.attention import whole
from switchx.model.attention.visibility import Visibility
from switchx.model.remat import kept
from switchx.sharding import LOGICAL_AXES, batch_shards, platform, spec


@jax.custom_vjp
def attend(
    query_BLHK: jax.Array,
    key_BMHK: jax.Array,
    value_BMHK: jax.Array,
    bias_HW: jax.Array | None,
    visibility: Visibility,
) -> jax.Array:
    """softmax(query key + bias) value, [B, L, H, K]; the softmax in float32.

    The backward pass computes the weights again from their log-sum-exp (Dao et al. 2022,
    FlashAttention, algorithm 4): keeping them costs more than the product.

    Args:
      bias_HW: float32 [H, L+M-1], the bias of each diagonal, see RelativePositionBias.
    """
    return _forward(query_BLHK, key_BMHK, value_BMHK, bias_HW, visibility)[0]


def _forward(*operands: Any) -> tuple[jax.Array, Any]:
    form = _kernels(*operands[:4])
    if form is None:
        y_BLHK, log_sum = whole.forward(*operands)
    else:
        y_BLHK, log_sum = map(kept, _on_each_device(form.forward, operands, _OF_FORWARD))
    return y_BLHK, (*operands, y_BLHK, log_sum)


def _backward(residuals: Any, dy_BLHK: jax.Array) -> tuple[jax.Array | None, ...]:
    operands = (*residuals, dy_BLHK)
    form = _kernels(*operands[:4])
    if form is None:
        return *whole.backward(*operands), None

    def backward(*share: Any) -> tuple[jax.Array | None, ...]:
        *grads, dbias_HW = form.backward(*share)
        if dbias_HW is not None and not jax.sharding.get_abstract_mesh().empty:
            dbias_HW = jax.lax.psum(dbias_HW, LOGICAL_AXES["batch"])
        return *grads, dbias_HW

    return *_on_each_device(backward, operands, _OF_BACKWARD), None


attend.defvjp(_forward, _backward)


def _kernels(
    query_BLHK: jax.Array, key_BMHK: jax.Array, value_BMHK: jax.Array, bias_HW: jax.Array | None
) -> Any:
    """The platform's kernels, if they can cut up these shapes; None: by whole arrays."""
    B, L, H, K = query_BLHK.shape
    mesh = jax.sharding.get_abstract_mesh()
    rows, heads = (1, 1) if mesh.empty else (batch_shards(mesh), mesh.shape["model"])
    if B % rows or H % heads:
        return None
    if platform() == "gpu":
        from switchx.model.attention import triton

        return triton if triton.fits(K) else None
    if not _has_room_for_blocks():
        return None
    from switchx.model.attention import blocked

    fits = blocked.fits(H // heads, L, key_BMHK.shape[1], K, bias_HW is not None)
    return blocked if fits else None


def _has_room_for_blocks() -> bool:
    """On TPUs from v5e and v5p on; those before have a quarter of their fast memory, or less."""
    if platform() != "tpu":
        return False
    from jax.experimental.pallas import tpu as pltpu

    return pltpu.get_tpu_info().vmem_capacity_bytes >= 64 << 20


_HEADS, _BIAS = spec("batch", None, "heads", None), spec("heads", None)
_LOG_SUM = spec("batch", "heads", None, None)
_OF_OPERANDS = (_HEADS, _HEADS, _HEADS, _BIAS, spec("batch", None), _HEADS, _LOG_SUM, _HEADS)
_OF_FORWARD = (_HEADS, _LOG_SUM)
_OF_BACKWARD = (_HEADS, _HEADS, _HEADS, _BIAS)


def _on_each_device(form: Callable, operands: tuple, out_specs: tuple) -> Any:
    """Each device's rows and heads; the compiler shares out no kernel by itself."""
    if jax.sharding.get_abstract_mesh().empty:
        return form(*operands)
    return jax.shard_map(
        form, in_specs=_OF_OPERANDS[: len(operands)], out_specs=out_specs, check_vma=False
    )(*operands)
