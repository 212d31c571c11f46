"""The device mesh: four named axes of plain integer sizes."""

import dataclasses
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from switchx.checks import UNFIT
from switchx.errors import UserError
from switchx.terminal import counted, table

# From the slowest network to the fastest: later axes get the nearer devices.
MESH_AXES = ("replica", "data", "expert", "model")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Sizes of the mesh axes. At most one is -1: whatever the others leave of the devices.

    The paper's layouts (its figure 9) are data (only `data`), model (only `model`), model and
    data, expert and data (`expert`, which carries the batch outside expert layers), and all three.

    Attributes:
      data: copies of the model, each with its share of the batch (macro MESH_DATA).
      expert: shards of the experts; the batch is shared out over this axis too, outside
        expert layers (macro MESH_EXPERT).
      model: shards of heads, d_ff and vocabulary (macro MESH_MODEL).
      replica: copies of all of these over a slower network, as many or a multiple of the slices;
        only gradients pass between them (macro MESH_REPLICA).
      fully_sharded: whether parameters and optimizer state are split over `data` too, those that
        are no experts' over `expert` as well, and gathered where they are used: less memory, more
        traffic, the same numbers (macro FULLY_SHARDED).
    """

    data: int = -1
    expert: int = 1
    model: int = 1
    replica: int = 1
    fully_sharded: bool = False

    def __str__(self) -> str:
        return ", ".join(f"MESH_{axis.upper()}={getattr(self, axis)}" for axis in MESH_AXES)


def resolve(config: MeshConfig, num_devices: int) -> dict[str, int]:
    """Returns the size of each axis on `num_devices` devices, or says why there is none."""
    sizes = {axis: getattr(config, axis) for axis in MESH_AXES}
    rest = [axis for axis, size in sizes.items() if size == -1]
    wrong = [size for size in sizes.values() if type(size) is not int or size < 1]
    if len(rest) > 1 or len(wrong) > len(rest):
        raise UserError(
            f"{config}: mesh sizes are whole numbers from 1, and at most one may be -1."
        )
    known = math.prod(size for size in sizes.values() if size != -1)
    if rest and num_devices % known == 0:
        sizes[rest[0]] = num_devices // known
    if math.prod(sizes.values()) != num_devices:
        raise UserError(
            f"{config} does not fit {counted(num_devices, 'device')}: "
            f"their product must be {num_devices} (-1 takes what the others leave)."
        )
    return sizes


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Builds the mesh over `devices` (default: all), in an order that suits their network.

    Raises:
      UserError: if the sizes do not multiply to the number of devices, or a replica would lie
        across slices; if JAX is set to what no run can be computed with.
    """
    _check_jax()
    devices = list(jax.devices() if devices is None else devices)
    sizes = resolve(config, len(devices))
    slices = _by_slice(devices)
    if sizes["replica"] % len(slices):
        raise UserError(
            f"{config}: the devices are {len(slices)} slices, between which the network is slow; "
            f"MESH_REPLICA must be {len(slices)} or a multiple of it."
        )
    shape = (sizes["replica"] // len(slices), *list(sizes.values())[1:])
    blocks = [_near(shape, part) for part in slices]
    # Explicit axes (the default of newer JAX) make a product over a sharded axis an error.
    return Mesh(np.concatenate(blocks), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def in_force(mesh: Mesh) -> AbstractContextManager[Any]:
    """`jax.set_mesh`, for a caller who may have set JAX otherwise since the mesh was made.

    Raises:
      UserError: JAX is set to what no run can be computed with.
    """
    _check_jax()
    return jax.set_mesh(mesh)


def _check_jax() -> None:
    for name, (unfit, why) in UNFIT.items():
        for value in unfit:
            if getattr(jax.config, name) == value:
                raise UserError(f"JAX is set to {name}={value!r}, which {why}: leave it as it is.")


def num_slices(mesh: Mesh) -> int:
    """How many TPU slices the mesh's devices form; 1 on other platforms."""
    return len(_by_slice(list(mesh.devices.flat)))


def _by_slice(devices: Sequence[jax.Device]) -> list[list[jax.Device]]:
    """The devices of each TPU slice. Other platforms count their hosts as slices, or have none."""
    slices: dict[int, list[jax.Device]] = {}
    for device in devices:
        number = getattr(device, "slice_index", 0) if device.platform == "tpu" else 0
        slices.setdefault(number or 0, []).append(device)
    return [slices[number] for number in sorted(slices)]


def _near(shape: tuple[int, ...], devices: Sequence[jax.Device]) -> np.ndarray:
    """The devices in this shape, neighbours along its axes near each other on the network."""
    try:
        return mesh_utils.create_device_mesh(shape, devices)
    except NotImplementedError:  # an axis takes part of one dimension of a torus
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)


def describe(mesh: Mesh) -> str:
    """One line for a person: axis sizes and the devices beneath them."""
    sizes = " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    kind = mesh.devices.flat[0].device_kind
    return f"{sizes} over {counted(mesh.size, f'{kind} device')}"


def mesh_table(mesh: Mesh, fully_sharded: bool) -> list[str]:
    """The mesh as a small table: each axis, its size, and what it shares out."""
    carries = {
        "replica": "the batch, over the slower network",
        "data": "the batch" + ("; parameters and optimizer state" if fully_sharded else ""),
        "expert": "experts; the batch outside expert layers"
        + ("; parameters and optimizer state there" if fully_sharded else ""),
        "model": "heads, d_ff and vocabulary",
    }
    hosts = len({device.process_index for device in mesh.devices.flat})
    kind = mesh.devices.flat[0].device_kind
    counts = [counted(mesh.size, f"{kind} device"), counted(hosts, "host")]
    rows = [(axis, size, carries[axis]) for axis, size in mesh.shape.items()]
    devices = ("devices", mesh.size, ", ".join(counts))
    return table([("axis", "size", "shares out"), *rows, devices])


def platform() -> str:
    """What is traced for: the platform of the mesh in force (`jax.set_mesh`), or the default."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform
