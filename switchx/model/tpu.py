"""Which TPU is traced for."""

from switchx.sharding import platform


def from_v5_on() -> bool:
    """A TPU from v5e and v5p on; those before have a quarter of their fast memory, or less."""
    if platform() != "tpu":
        return False
    from jax.experimental.pallas import tpu as pltpu

    return pltpu.get_tpu_info().vmem_capacity_bytes >= 64 << 20
