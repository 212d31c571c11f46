"""The fastest a device can multiply matrices: what utilisation is measured against."""

import functools
import time

import jax
import jax.numpy as jnp

# FLOP/s of dense products (no structured sparsity) in bfloat16 and float32 of what JAX calls one
# device, by its `device_kind`. JAX's default precision takes float32 through TF32 on NVIDIA GPUs
# and through one bfloat16 pass on TPUs. Only what could be looked up is here (November 2026).
_PEAK: dict[str, tuple[float, float]] = {
    # docs.cloud.google.com/tpu/docs/v4, v5e, v5p, v6e: "Peak compute per chip (bf16)". Chips also
    # call themselves by the second name (jax/_src/pallas/mosaic/tpu_info.py of JAX 0.10).
    "TPU v4": (275e12, 275e12),
    "TPU v5 lite": (197e12, 197e12),
    "TPU v5e": (197e12, 197e12),
    "TPU v5p": (459e12, 459e12),
    "TPU v5": (459e12, 459e12),
    "TPU v6 lite": (918e12, 918e12),
    "TPU v6e": (918e12, 918e12),
    # NVIDIA's A100 data sheet.
    "NVIDIA A100-SXM4-40GB": (312e12, 156e12),
    "NVIDIA A100-SXM4-80GB": (312e12, 156e12),
    "NVIDIA A100-PCIE-40GB": (312e12, 156e12),
    "NVIDIA A100 80GB PCIe": (312e12, 156e12),
    # github.com/openxla/xla, xla/backends/gpu/target_config/specs/{h100_sxm,h100_pcie,h200,b200,
    # gb200}.txtpb: cores x 4 matrix units x operations a clock x the clock of these units.
    "NVIDIA H100 80GB HBM3": (989.2e12, 494.6e12),
    "NVIDIA H100 PCIe": (757.2e12, 378.6e12),
    "NVIDIA H200": (989.2e12, 494.6e12),
    "NVIDIA B200": (2225e12, 1112.5e12),
    "NVIDIA GB200": (2398e12, 1199e12),
}


def peak_flops(device_kind: str, dtype: str) -> float | None:
    """Published FLOP/s of a device at `dtype` ("bfloat16" or "float32"); None if not in the table.

    Args:
      device_kind: as `jax.Device.device_kind` gives it, e.g. "TPU v5 lite", "NVIDIA H200".
    """
    if device_kind not in _PEAK:
        return None
    bfloat16, float32 = _PEAK[device_kind]
    return bfloat16 if dtype == "bfloat16" else float32


@functools.cache
def measured_matmul_rate(dtype: str = "float32", seconds: float = 0.2) -> float:
    """FLOP/s of the best of several square products, on all cores of a CPU; measured once.

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
