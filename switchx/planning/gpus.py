"""What the GPU compiler must be told of a GPU that it cannot ask."""

from switchx.planning.chips import Chip

# Without a GPU nothing can be tried out, and the tiles that Triton's products are then given do not
# suit every shape, which ends the compilation (jaxlib 0.10.2): all products go to cuBLAS.
COMPILER_OPTIONS = {"xla_gpu_enable_triton_gemm": False}

# Multiprocessors, compute capability, bytes of shared memory per multiprocessor and at most per
# block, bytes of L2 cache: github.com/openxla/xla, xla/backends/gpu/target_config/specs/
# {a100_sxm_80,h100_sxm,h200}.txtpb, and so are the numbers below that all share.
_HOPPER = (132, (9, 0), 233_472, 232_448, 50 * 2**20)
_GPUS = {
    "a100": (108, (8, 0), 167_936, 166_912, 40 * 2**20),
    "h100": _HOPPER,
    "h200": _HOPPER,
}


def target_config(chip: Chip) -> str:
    """The GPU as XLA's GpuTargetConfigProto in text form."""
    cores, (major, minor), shared, shared_per_block, cache = _GPUS[chip.name]
    device = {
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "shared_memory_per_block": 48 * 1024,
        "shared_memory_per_core": shared,
        "shared_memory_per_block_optin": shared_per_block,
        "threads_per_core_limit": 2048,
        "core_count": cores,
        "fpus_per_core": 128 if major == 9 else 64,
        "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 65535,
        "block_dim_limit_z": 65535,
        "memory_bandwidth": int(chip.hbm_rate),
        "l2_cache_size": cache,
        "clock_rate_ghz": chip.clock / 1e9,
        "device_memory_size": chip.hbm_bytes,
        "registers_per_core_limit": 65536,
        "registers_per_block_limit": 65536,
    }
    fields = " ".join(f"{name}: {value}" for name, value in device.items())
    capability = f"cuda_compute_capability {{ major: {major} minor: {minor} }}"
    return (
        f"gpu_device_info {{ {fields} {capability} }}\n"
        'platform_name: "CUDA"\n'
        "dnn_version_info { major: 9 }\n"
        f'device_description_str: "{chip.device_kind}"\n'
    )
