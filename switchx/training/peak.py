"""The fastest a device can multiply matrices: what utilisation is measured against."""

import time

import jax
import jax.numpy as jnp

# Dense products (no structured sparsity), FLOP/s of what JAX calls one device, by a part of
# `device_kind`; the first match counts. (bfloat16, float32). JAX's default precision takes
# float32 through TF32 on NVIDIA GPUs and through one bfloat16 pass on TPUs.
_PEAK: tuple[tuple[str, float, float], ...] = (
    # Google Cloud TPU documentation, "System architecture", peak compute per chip.
    ("TPU v6 lite", 918e12, 918e12),
    ("TPU v6e", 918e12, 918e12),
    ("TPU v5 lite", 197e12, 197e12),
    ("TPU v5e", 197e12, 197e12),
    ("TPU v5p", 459e12, 459e12),
    ("TPU v5", 459e12, 459e12),  # as v5p also calls itself
    ("TPU v4", 275e12, 275e12),
    # NVIDIA data sheets of each product; where they give rates with sparsity, half of those.
    ("GB200", 2500e12, 1250e12),
    ("B200", 2250e12, 1125e12),
    ("H200 NVL", 835.5e12, 417.5e12),
    ("H200", 989.5e12, 494.5e12),
    ("H100 NVL", 835.5e12, 417.5e12),
    ("H100 PCIe", 756e12, 378e12),
    ("H100", 989.5e12, 494.5e12),
    ("A100", 312e12, 156e12),
)


def peak_flops(device_kind: str, dtype: str) -> float | None:
    """Published FLOP/s of a device at `dtype` ("bfloat16" or "float32"); None if not in the table.

    Args:
      device_kind: as `jax.Device.device_kind` gives it, e.g. "TPU v5 lite", "NVIDIA H200".
    """
    for kind, bfloat16, float32 in _PEAK:
        if kind in device_kind:
            return bfloat16 if dtype == "bfloat16" else float32
    return None


def measured_matmul_rate(dtype: str = "float32", seconds: float = 0.2) -> float:
    """FLOP/s of the best of several square products here and now, on all cores of a CPU.

    CPU devices that share one machine (`--cpu_devices`) share its cores too: this is the rate of
    the whole process, not of one device.
    """
    n = 1024
    x_NN = jnp.ones((n, n), dtype)
    product = jax.jit(jnp.matmul)
    product(x_NN, x_NN).block_until_ready()
    best, deadline = float("inf"), time.perf_counter() + seconds
    while (start := time.perf_counter()) < deadline:
        product(x_NN, x_NN).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best
