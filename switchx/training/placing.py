"""Where the arrays of a model lie on a mesh, and how many bytes of them one device has."""

import math
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding

from switchx.model import Model, Params
from switchx.sharding import state_spec


def bytes_per_device(abstract: Any) -> int:
    """Bytes of one device's part of a tree of jax.ShapeDtypeStruct with shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(abstract)
    )


def abstract_params(model: Model, mesh: Mesh | AbstractMesh, fully_sharded: bool = False) -> Params:
    """The parameters as jax.ShapeDtypeStruct with the shardings in which they lie on `mesh`."""
    return jax.tree.map(
        lambda leaf, own: placed(leaf, own, mesh, fully_sharded), model.shapes, model.axes
    )


def placed(leaf: Any, axes: tuple[str | None, ...], mesh: Any, split: bool) -> Any:
    """A leaf (jax.ShapeDtypeStruct) with its sharding, by the logical axes of its dimensions."""
    sharding = NamedSharding(mesh, state_spec(axes, split))
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
