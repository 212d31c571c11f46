"""The tables that map logical axis names of parameters and activations to mesh axes."""

import functools
import math
from collections.abc import Mapping

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

# Outside expert layers the batch is shared out over `expert` too, so that no device idles there.
LOGICAL_AXES: dict[str, tuple[str, ...] | str | None] = {
    "batch": ("replica", "data", "expert"),  # sequences
    "group": ("replica", "data", "expert"),  # groups of tokens, before dispatch, after combine
    "expert_group": ("replica", "data"),  # groups of tokens while they sit with their experts
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


def state_spec(axes: tuple[str | None, ...], fully_sharded: bool) -> PartitionSpec:
    """The partition of a parameter or of optimizer state of these logical names.

    Fully sharded, its `embed` dimension, of which every matrix has one, is split over all devices
    of the fast network that would have copies; each use gathers it again.
    """
    whole = spec(*axes)
    if not fully_sharded:
        return whole
    copies = "data" if "expert" in axes else ("data", "expert")
    split = (copies if axis == "embed" else over for axis, over in zip(axes, whole, strict=True))
    return PartitionSpec(*split)


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Pins `x` to the mesh in force (`jax.set_mesh`) by logical names; without one, returns `x`."""
    if len(axes) != x.ndim:
        raise ValueError(f"{len(axes)} axis names for an array of shape {x.shape}")
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, spec(*axes))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def gathered(x: jax.Array, axes: tuple[str | None, ...]) -> jax.Array:
    """A parameter to compute with: whole along `embed`, which may be split at rest.

    Left to itself the compiler gathers some of them piece by piece within their products, and
    tokens in place of others. Only the value is pinned: the gradient goes where the parameter is.
    """
    return constrain(x, *axes)


# By `constrain`: where that does nothing the value stays the parameter itself, which a loop over
# layers then reads again in its backward pass, and keeps no copy of.
gathered.defvjp(lambda x, axes: (constrain(x, *axes), None), lambda axes, _, dx: (dx,))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """How a batch's arrays lie on the mesh: rows shared out, everything else whole."""
    return NamedSharding(mesh, spec("batch"))


def batch_shards(mesh: Mesh | AbstractMesh) -> int:
    """Parts that the rows of a batch are shared out in; 1 on no mesh (an empty one)."""
    return _size(mesh, "batch")


def expert_copies(mesh: Mesh | AbstractMesh) -> int:
    """How many devices have the same experts: they share out the groups of tokens there."""
    return _size(mesh, "expert_group")


def _size(mesh: Mesh | AbstractMesh, logical: str) -> int:
    sizes: Mapping[str, int] = mesh.shape
    return math.prod(sizes.get(axis, 1) for axis in LOGICAL_AXES[logical] or ())
