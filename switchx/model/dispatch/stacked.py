"""A layer's kernels in the stack of all layers', read and their gradients written where they lie.

A loop over layers gives each a copy of its part of every stack, and copies what each returns as
gradients into one. XLA's own products take part in that, kernels of ours do not, and experts'
matrices are most of a model. So a kernel takes the whole stack and the layer's number, and the
stack of gradients goes through the layers from the last to the first, each of which writes its
part: as the gradient of a stack that goes through them from the first to the last as it is.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Stacked:
    """One layer's kernels, [E, D, F] of [L, E, D, F], for the time that the layer is computed.

    Attributes:
      kernel_LEDF: all layers', float32, without a gradient.
      passed_LEDF: the same with one; what multiplies with it replaces it by what it hands on.
      layer: int32, its number.
    """

    kernel_LEDF: jax.Array
    passed_LEDF: jax.Array
    layer: jax.Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Of this layer's."""
        return self.kernel_LEDF.shape[1:]


Kernel = jax.Array | Stacked
Kernels = Mapping[str, Any]  # by name, a Kernel for each of those of one width


def stacked_in(tree: Any) -> list[Stacked]:
    """All that there are in a tree of arrays."""
    leaves: Iterable[Any] = jax.tree.leaves(tree, is_leaf=lambda leaf: isinstance(leaf, Stacked))
    return [leaf for leaf in leaves if isinstance(leaf, Stacked)]
