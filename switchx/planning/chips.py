"""What one chip can do: rates and sizes, with where its maker's public documentation has them.

Peak FLOP/s are not here but in `switchx.training.peak`, found by the chip's `device_kind`.
"""

import dataclasses

from switchx.training.peak import peak_flops

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip: what JAX calls one device.

    Attributes:
      name: as users write it in a topology: "v5p", "h100".
      device_kind: as `jax.Device.device_kind` gives it.
      cores: units that the chip's slice names count ("v5p-1024" has 512 chips).
      chips_per_host: chips of one machine.
      hbm_bytes: memory that a program may fill; for TPUs the compiler's own limit.
      hbm_rate: bytes/s from and to that memory.
      fabric_rate: bytes/s that a chip can send within its slice or node, over all links together.
      torus_axes: dimensions of the torus that the slice's chips form, with two links along each;
        0 for chips behind a switch.
      network_rate: bytes/s that a chip can send to other slices or nodes, its share of the host's;
        None where no public source has it: then plans are for one slice or node.
      clock: Hz.
    """

    name: str
    device_kind: str
    cores: int
    chips_per_host: int
    hbm_bytes: int
    hbm_rate: float
    fabric_rate: float
    torus_axes: int
    network_rate: float | None
    clock: float

    @property
    def is_tpu(self) -> bool:
        return self.torus_axes > 0

    def peak_flops(self, dtype: str) -> float:
        """FLOP/s of dense products at "bfloat16" or "float32"."""
        peak = peak_flops(self.device_kind, dtype)
        if peak is None:
            raise ValueError(f"{self.device_kind} is not in switchx.training.peak")
        return peak


# Looked up in November 2026, and where.
# TPUs: docs.cloud.google.com/tpu/docs/v4, v5e, v5p, v6e. Interconnect: "bidirectional ICI bandwidth
# per chip" of v5e 400, v5p 1200 and v6e 800 GB/s, of which one way is half; of v4 "all-reduce
# bandwidth per Pod", 1.1 PB/s for 4096 chips (the same figure of v5e and v6e is the one-way rate of
# their chips). Network: "DCN bandwidth per chip" of v5p, 50 Gbit/s, and "data center network
# bandwidth per Pod" of v5e and v6e, 6.4 and 25.6 Tbit/s for 256 chips; of v4 there is none. HBM
# rates: the same pages (v6e's gave 1640 until 2025, now 1600). HBM bytes: what the compiler (libtpu
# 0.0.42) states when a program is too large. Clock: peak / (matrix units x 128 x 128 x 2; v6e's
# units are 256 x 256), as the pages count the units.
# NVIDIA: memory rate and clock from github.com/openxla/xla, xla/backends/gpu/target_config/specs/
# {a100_sxm_80,h100_sxm,h200}.txtpb. NVLink: 12 links of A100, 600 GB/s in both directions together
# ("Introducing NVIDIA HGX A100", developer.nvidia.com/blog), and 18 of H100 and H200, 900 GB/s
# (their data sheets); one way is half. Network: one port of 400 Gbit/s for each GPU of a DGX H100
# or H200 (docs.nvidia.com/dgx-basepod, "Core Components"); of a DGX A100 nothing could be found.
CHIPS: dict[str, Chip] = {
    chip.name: chip
    for chip in (
        Chip("v4", "TPU v4", 2, 4, int(30.75 * GIB), 1200e9, 268.6e9, 3, None, 1.05e9),
        Chip("v5e", "TPU v5 lite", 1, 4, int(15.75 * GIB), 819e9, 200e9, 2, 3.125e9, 1.5e9),
        Chip("v5p", "TPU v5p", 2, 4, int(95.74 * GIB), 2765e9, 600e9, 3, 6.25e9, 1.75e9),
        Chip("v6e", "TPU v6 lite", 1, 4, int(31.25 * GIB), 1640e9, 400e9, 2, 12.5e9, 1.75e9),
        Chip("a100", "NVIDIA A100-SXM4-80GB", 1, 8, 80 * 10**9, 2039e9, 300e9, 0, None, 1.41e9),
        Chip("h100", "NVIDIA H100 80GB HBM3", 1, 8, 80 * 10**9, 3352e9, 450e9, 0, 50e9, 1.98e9),
        Chip("h200", "NVIDIA H200", 1, 8, 141 * 10**9, 4800e9, 450e9, 0, 50e9, 1.98e9),
    )
}
