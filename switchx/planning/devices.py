"""Devices to compile for that this machine does not have."""

import importlib.util
from typing import Any

import jax

from switchx.planning.gpus import COMPILER_OPTIONS, target_config
from switchx.planning.topology import Topology

_CUDA = ["jax_cuda12_plugin", "jax_cuda13_plugin"]


def missing_compiler(topology: Topology) -> str | None:
    """One line that says what to install to compile for these chips; None if it is there."""
    if topology.chip is None:
        return None
    packages, extra = (["libtpu"], "plan") if topology.chip.is_tpu else (_CUDA, "cuda")
    if any(importlib.util.find_spec(package) is not None for package in packages):
        return None
    return f"{packages[0]}, their compiler, is not installed (make install EXTRAS='dev {extra}')"


def compile_only_devices(topology: Topology) -> list[jax.Device]:
    """The topology's devices: those of this process for CPUs, else ones that only compile."""
    if topology.chip is None:
        return jax.devices("cpu")[: topology.num_chips]
    from jax.experimental import topologies

    if not topology.chip.is_tpu:
        shape = f"{topology.slices}x1x{topology.shape}"  # groups of hosts x hosts x GPUs of a host
        config = target_config(topology.chip)
        described = topologies.get_topology_desc("", "cuda", topology=shape, target_config=config)
        return list(described.devices)
    options: dict[str, Any] = {}
    if topology.chip.cores == 2:
        options["chip_config_name"] = "megacore"  # two cores that compute as one device
    if topology.grid == (1, 1):
        options["chips_per_host_bounds"] = [1, 1, 1]
    if topology.slices > 1:
        options["num_slices"] = topology.slices
    name = f"{topology.chip.name}:{topology.shape}"
    described = topologies.get_topology_desc(name, "tpu", **options)
    return list(described.devices)


def compiler_options(topology: Topology) -> dict[str, Any]:
    """What a program needs to be told to compile for devices that this machine does not have."""
    gpus = topology.chip is not None and not topology.chip.is_tpu
    return dict(COMPILER_OPTIONS) if gpus else {}
