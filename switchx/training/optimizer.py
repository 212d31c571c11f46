"""Optimizers, from optax's parts, and where their state lies."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from switchx.model import Params
from switchx.training.config import OptimizerConfig
from switchx.training.schedules import make_schedule

# T5X's rule: matrices are factored where that saves memory, experts' always.
MIN_DIM_SIZE_TO_FACTOR = 128
MIN_EXPERT_DIM_SIZE_TO_FACTOR = 1


def make_optimizer(
    config: OptimizerConfig, train_steps: int, axes: Params
) -> optax.GradientTransformation:
    """The optimizer for parameters with these logical axes, learning rate included."""
    parts = []
    if config.clip_global_norm is not None:
        parts.append(optax.clip_by_global_norm(config.clip_global_norm))
    if config.name == "adafactor":
        parts.append(_per_matrix(_adafactor, axes))
    else:
        parts.append(optax.scale_by_adam(config.beta1, config.beta2))
        parts.append(optax.add_decayed_weights(config.weight_decay))
    parts.append(optax.scale_by_learning_rate(make_schedule(config, train_steps)))
    return optax.chain(*parts)


def _adafactor(leading: int) -> optax.GradientTransformation:
    """Adafactor as T5 sets it (Shazeer and Stern 2018): no first moment, update clipped to RMS 1.

    `leading` is the number of `batch_axes` of the parameters, two for those of experts.
    Steps are relative: each is scaled by its parameter's RMS, at least 1e-3.
    """
    least = MIN_EXPERT_DIM_SIZE_TO_FACTOR if leading == 2 else MIN_DIM_SIZE_TO_FACTOR
    return optax.chain(
        optax.scale_by_factored_rms(decay_rate=0.8, min_dim_size_to_factor=least, epsilon=1e-30),
        optax.clip_by_block_rms(1.0),
        optax.scale_by_param_block_rms(1e-3),
    )


def batch_axes(axes: tuple[str | None, ...]) -> int:
    """Leading axes that count parameters rather than belong to one: layers, then experts."""
    return sum(axis in ("layers", "expert") for axis in axes)


def _per_matrix(
    make: Callable[[int], optax.GradientTransformation], axes: Params
) -> optax.GradientTransformation:
    """Treats every layer's and every expert's matrix as a parameter of its own.

    Stacking layers to scan them must not change what Adafactor's statistics are taken over.
    """
    labels = jax.tree.map(batch_axes, axes, is_leaf=lambda x: isinstance(x, tuple))
    return optax.partition(
        {n: _mapped(make(n), n) for n in sorted(set(jax.tree.leaves(labels)))}, labels
    )


def _mapped(tx: optax.GradientTransformation, times: int) -> optax.GradientTransformation:
    init, update = tx.init, tx.update
    for _ in range(times):
        init, update = jax.vmap(init), jax.vmap(update)
    return optax.GradientTransformation(init, update)


def state_axes(state: Any, shapes: Params, axes: Params) -> Any:
    """Logical axes of every array of the optimizer's state, nested like it.

    A moment lies like its parameter; a factored row or column like its parameter without the
    dimension it was averaged over; counters and placeholders are replicated.

    Args:
      state: the optimizer's state, or its shapes.
      shapes, axes: those of the parameters.
    """
    known = {
        path: (leaf.shape, own)
        for (path, leaf), own in zip(
            jax.tree_util.tree_leaves_with_path(shapes),
            jax.tree.leaves(axes, is_leaf=lambda x: isinstance(x, tuple)),
            strict=True,
        )
    }

    def of(path: tuple, leaf: Any) -> tuple[str | None, ...]:
        field = next((i for i, key in enumerate(path) if _is_moment(key)), None)
        if field is not None:
            shape, own = known[path[field + 1 :]]
            for kept in _kept_dims(shape, batch_axes(own)):
                if leaf.shape == tuple(shape[i] for i in kept[1]) and kept[0] in (
                    "any",
                    path[field].name,
                ):
                    return tuple(own[i] for i in kept[1])
        return (None,) * len(leaf.shape)

    return jax.tree_util.tree_map_with_path(of, state)


def _is_moment(key: Any) -> bool:
    return getattr(key, "name", None) in ("v", "v_row", "v_col", "mu", "nu")


def _kept_dims(shape: tuple[int, ...], leading: int) -> list[tuple[str, list[int]]]:
    """Per kind of moment, the parameter's dimensions it keeps: all, or without the largest
    (v_row) or the second largest (v_col), as optax chooses them."""
    every = list(range(len(shape)))
    kinds = [("any", every)]
    if len(shape) - leading >= 2:
        second, largest = (leading + int(i) for i in np.argsort(shape[leading:])[-2:])
        kinds.append(("v_row", [i for i in every if i != largest]))
        kinds.append(("v_col", [i for i in every if i != second]))
    return kinds
