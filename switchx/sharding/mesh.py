"""The device mesh: three named axes of plain integer sizes."""

import dataclasses
import math
from collections.abc import Sequence

import jax
from jax.sharding import AxisType, Mesh

from switchx.errors import UserError

MESH_AXES = ("data", "expert", "model")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Sizes of the mesh axes. At most one is -1: whatever the other two leave of the devices.

    Attributes:
      data: copies of the model, each with its share of the batch (macro MESH_DATA).
      expert: shards of the experts; the batch is shared out over this axis too, outside
        expert layers (macro MESH_EXPERT).
      model: shards of heads, d_ff and vocabulary (macro MESH_MODEL).
    """

    data: int = -1
    expert: int = 1
    model: int = 1


def resolve(config: MeshConfig, num_devices: int) -> dict[str, int]:
    """Returns the size of each axis on `num_devices` devices, or says why there is none."""
    sizes = {axis: getattr(config, axis) for axis in MESH_AXES}
    given = ", ".join(f"MESH_{axis.upper()}={size}" for axis, size in sizes.items())
    rest = [axis for axis, size in sizes.items() if size == -1]
    wrong = [size for size in sizes.values() if not isinstance(size, int) or size < 1]
    if len(rest) > 1 or len(wrong) > len(rest):
        raise UserError(f"{given}: mesh sizes are whole numbers from 1, and at most one may be -1.")
    known = math.prod(size for size in sizes.values() if size != -1)
    if rest and num_devices % known == 0:
        sizes[rest[0]] = num_devices // known
    if math.prod(sizes.values()) != num_devices:
        raise UserError(
            f"{given} does not fit {num_devices} device{'s' if num_devices > 1 else ''}: "
            f"the product of the three must be {num_devices} (-1 takes what the others leave)."
        )
    return sizes


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Builds the mesh over `devices` (default: all), in an order that suits their network.

    Raises:
      UserError: if the sizes do not multiply to the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = resolve(config, len(devices))
    # Explicit axes (the default of newer JAX) make a product over a sharded axis an error.
    auto = (AxisType.Auto,) * len(MESH_AXES)
    return jax.make_mesh(tuple(sizes.values()), MESH_AXES, axis_types=auto, devices=devices)


def describe(mesh: Mesh) -> str:
    """One line for a person: axis sizes and the devices beneath them."""
    sizes = " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    kind = mesh.devices.flat[0].device_kind
    return f"{sizes} over {mesh.size} {kind} device{'s' if mesh.size > 1 else ''}"
