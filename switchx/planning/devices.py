"""Devices to compile for that this machine does not have."""

import importlib.util
import os
from collections.abc import Mapping
from typing import Any

import jax

from switchx.planning.topology import Topology

# libtpu must neither look for the TPU's metadata server nor lock the machine for itself. In force
# only if set before JAX is imported.
ENVIRONMENT: Mapping[str, str] = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_LOG_DIR": "disabled",
}


def missing_compiler(topology: Topology) -> str | None:
    """One line that says what to install to compile for these chips; None if it is there."""
    if topology.chip is None:
        return None
    if not topology.chip.is_tpu:
        return "GPU programs are not compiled here"
    if importlib.util.find_spec("libtpu") is None:
        return "libtpu, the TPU's compiler, is not installed (make install EXTRAS='dev plan')"
    return None


def compile_only_devices(topology: Topology) -> list[jax.Device]:
    """The topology's devices: those of this process for CPUs, else ones that only compile."""
    if topology.chip is None:
        return jax.devices("cpu")[: topology.num_chips]
    from jax.experimental import topologies

    options: dict[str, Any] = {}
    if topology.chip.cores == 2:
        options["chip_config_name"] = "megacore"  # two cores that compute as one device
    if topology.grid == (1, 1):
        options["chips_per_host_bounds"] = [1, 1, 1]
    if topology.slices > 1:
        options["num_slices"] = topology.slices
    return list(
        topologies.get_topology_desc(
            platform="tpu",
            topology_name=f"{topology.chip.name}:{topology.shape}",
            **options,
        ).devices
    )


def set_environment() -> None:
    """Puts ENVIRONMENT in force; what the user has set stays."""
    for name, value in ENVIRONMENT.items():
        if name == "JAX_PLATFORMS":
            os.environ[name] = value
        else:
            os.environ.setdefault(name, value)
