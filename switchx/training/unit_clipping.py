"""Adaptive gradient clipping by unit (Brock et al. 2021, 2102.06171), each matrix apart.

A unit is what makes one output of a matrix, its column in [in, out]; of a table of vectors, a
vector. Where the norm of a unit's gradient is above a share of the unit's own norm, it is scaled
down to that. A parameter is a stack of matrices: its leading axes count layers and experts, which
optax's own guess of the axes would add up in one norm.
"""

from collections.abc import Callable
from typing import Any

import jax
import optax

from switchx.model import Params

Clip = Callable[[jax.Array, jax.Array], jax.Array]
# Tables of vectors; every other parameter is a matrix [in, out], or a vector.
_TABLES = (("vocab", "embed"), ("heads", "buckets"))


def batch_axes(axes: tuple[str | None, ...]) -> int:
    """Leading axes that count parameters rather than belong to one: layers, then experts."""
    return sum(axis in ("layers", "expert") for axis in axes)


def clip_by_unit(share: float, axes: Params) -> optax.GradientTransformation:
    """Of gradients nested like `axes`, the parameters' logical axes. Keeps no state."""

    def update(gradients: Params, state: Any, params: Params) -> tuple[Params, Any]:
        clipped = jax.tree.map(lambda g, p, own: _clip(share, own)(g, p), gradients, params, axes)
        return clipped, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _clip(share: float, axes: tuple[str | None, ...]) -> Clip:
    leading = batch_axes(axes)
    within = 1 if axes[leading:] in _TABLES else 0  # the axis that a unit's norm is over
    of_matrix = optax.adaptive_grad_clip(share, axis=within)

    def clip(gradient: jax.Array, param: jax.Array) -> jax.Array:
        return of_matrix.update(gradient, optax.EmptyState(), param)[0]

    for _ in range(leading):
        clip = jax.vmap(clip)
    return clip
