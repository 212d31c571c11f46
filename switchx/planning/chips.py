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
      network_rate: bytes/s that a chip can send to other slices or nodes: its share of the host's.
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
    network_rate: float
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


# TPUs: Google Cloud TPU documentation, the pages "TPU v4", "v5e", "v5p", "v6e". Those give the
# interconnect (ICI) per chip in both directions together since 2025 (v5e 400, v6e 800, v5p 1200
# GB/s) and one way before (1600, 3200, 4800 Gbit/s): one way it is. v4: 6 links of 50 GB/s one way
# (Jouppi et al., ISCA 2023, table 4). Network between slices: v5p 50 Gbit/s a chip; v5e 2 x 100
# and v6e 4 x 200 Gbit/s for 8 chips; v4 50 Gbit/s a chip ("Cloud TPU Multislice Overview", its
# example of arithmetic intensity). HBM: what the compiler (libtpu 0.0.42) states when a program
# is too large, out of 32, 16, 95 and 32 GB. Clock: peak / (matrix units x 128 x 128 x 2; v6e's
# units are 256 x 256), as the pages count the units.
# NVIDIA: data sheets of A100 80GB SXM, H100 SXM, H200 SXM: memory, NVLink (600, 900, 900 GB/s in
# both directions together; one way is half). Network: one ConnectX-6 HDR of 200 Gbit/s per GPU in
# a DGX A100, one ConnectX-7 of 400 Gbit/s in a DGX H100 and H200 (their data sheets). Clock: boost.
# Read for this table: the TPU pages of v5e, v5p and v6e, and the compiler's limits. The rest (v4's
# networks, all of NVIDIA's) is recalled, with where it stands: check it before you rely on it.
CHIPS: dict[str, Chip] = {
    chip.name: chip
    for chip in (
        Chip("v4", "TPU v4", 2, 4, int(30.75 * GIB), 1200e9, 300e9, 3, 6.25e9, 1.05e9),
        Chip("v5e", "TPU v5 lite", 1, 4, int(15.75 * GIB), 819e9, 200e9, 2, 3.125e9, 1.5e9),
        Chip("v5p", "TPU v5p", 2, 4, int(95.74 * GIB), 2765e9, 600e9, 3, 6.25e9, 1.75e9),
        Chip("v6e", "TPU v6 lite", 1, 4, int(31.25 * GIB), 1640e9, 400e9, 2, 12.5e9, 1.75e9),
        Chip("a100", "NVIDIA A100-SXM4-80GB", 1, 8, 80 * 10**9, 2039e9, 300e9, 0, 25e9, 1.41e9),
        Chip("h100", "NVIDIA H100 80GB HBM3", 1, 8, 80 * 10**9, 3350e9, 450e9, 0, 50e9, 1.98e9),
        Chip("h200", "NVIDIA H200", 1, 8, 141 * 10**9, 4800e9, 450e9, 0, 50e9, 1.98e9),
    )
}
