"""The one table that maps logical axis names of parameters and activations to mesh axes."""

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# Outside expert layers the batch is shared out over `expert` too, so that no device idles there.
LOGICAL_AXES: dict[str, tuple[str, ...] | str | None] = {
    "batch": ("data", "expert"),  # sequences
    "group": ("data", "expert"),  # groups of tokens, before dispatch and after combine
    "expert_group": "data",  # groups of tokens while they sit with their experts
    "expert": "expert",
    "heads": "model",
    "mlp": "model",
    "vocab": "model",
    "embed": None,
    "layers": None,
    "buckets": None,
}


def spec(*axes: str | None) -> PartitionSpec:
    """The partition of an array whose dimensions carry these logical names (None: replicated)."""
    return PartitionSpec(*(None if axis is None else LOGICAL_AXES[axis] for axis in axes))


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Pins `x` to the mesh in force (`jax.set_mesh`) by logical names; without one, returns `x`."""
    if len(axes) != x.ndim:
        raise ValueError(f"{len(axes)} axis names for an array of shape {x.shape}")
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, spec(*axes))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """How a batch's arrays lie on the mesh: rows shared out, everything else whole."""
    return NamedSharding(mesh, spec("batch"))
