"""Where the arrays of an optimizer's state lie: like the parameters that they belong to.

Any optax transformation keeps what it knows of a parameter in a tree nested like the parameters:
so the end of such an array's path is the parameter's. Which of its dimensions are the parameter's
is found by looking at the state of parameters whose sizes are all different.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import optax
from jax.sharding import PartitionSpec

from switchx.errors import UserError
from switchx.model import Params

_FEW = 16  # elements of a counter, a random key or a setting, which every device may hold


def state_axes(optimizer: optax.GradientTransformation, shapes: Params, axes: Params) -> Any:
    """A PartitionSpec of logical axes for every array of an optimizer's state, nested like it.

    A dimension of a parameter carries the parameter's axis: a moment lies like its parameter, a
    factored row or column like its parameter without the dimension that was averaged over.
    Counters and other arrays of a few elements are on every device. Allocates nothing.

    Args:
      shapes, axes: of the parameters, as `Model` has them.

    Raises:
      UserError: a larger array has nothing of a parameter, so that nothing says where it lies.
    """
    told_apart = jax.tree.map(_told_apart, shapes)
    owners = {
        path: (leaf.shape, own)
        for (path, leaf), own in zip(
            jax.tree_util.tree_leaves_with_path(told_apart),
            jax.tree.leaves(axes, is_leaf=lambda x: isinstance(x, tuple)),
            strict=True,
        )
    }

    def of(path: tuple, leaf: Any, told: Any) -> PartitionSpec:
        places = _places(told.shape, *_owner(path, owners))
        if not places and math.prod(leaf.shape) > _FEW:
            name = jax.tree_util.keystr(path)
            raise UserError(
                f"OPTIMIZER's state holds {name} of shape {list(leaf.shape)}, which is like no "
                "parameter or part of one, so nothing says where it lies: use an optimizer that "
                "keeps its state by parameter."
            )
        return PartitionSpec(*(places.get(dim) for dim in range(len(leaf.shape))))

    state = jax.eval_shape(optimizer.init, shapes)
    return jax.tree_util.tree_map_with_path(of, state, jax.eval_shape(optimizer.init, told_apart))


def _told_apart(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """The shape with sizes that differ, in the same order, of equal ones the later being larger.

    That is the order in which optax chooses which dimensions to factor.
    """
    sizes, least = list(leaf.shape), 0
    for dim in sorted(range(len(sizes)), key=lambda dim: sizes[dim]):
        sizes[dim] = least = max(sizes[dim], least + 1)
    return jax.ShapeDtypeStruct(tuple(sizes), leaf.dtype)


def _owner(
    path: tuple, owners: Mapping[tuple, tuple[tuple[int, ...], tuple]]
) -> tuple[tuple[int, ...], tuple]:
    """Shape and axes of the parameter whose path a path ends with; of none, nothing."""
    ends = (path[start:] for start in range(len(path)))
    return next((owners[end] for end in ends if end in owners), ((), ()))


def _places(
    shape: tuple[int, ...], of_owner: tuple[int, ...], axes: tuple[str | None, ...]
) -> dict[int, str | None]:
    """The axes of those dimensions that are the owner's, which come in its order."""
    places: dict[int, str | None] = {}
    start = 0
    for dim, size in enumerate(shape):
        if size in of_owner[start:]:
            found = of_owner.index(size, start)
            places[dim], start = axes[found], found + 1
    return places
