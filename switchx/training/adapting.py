"""One model's parameters as another's: more experts or fewer, a deeper stack, a longer vocabulary.

What a dimension counts is told by the name of its axis. A dimension of the same size is taken as it
is; of another, by the rule of its axis, where the caller allows that rule.
"""

import fnmatch
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from switchx.errors import UserError
from switchx.model import Params
from switchx.training.config import StartConfig

# Which rule a dimension of another size falls under, by the name of its logical axis.
_RULES = {"expert": "experts", "layers": "layers", "vocab": "vocabulary"}
_ROUTER = "router/kernel_DE"  # its experts lie along an axis without a name, since it is replicated


def named(tree: Params) -> dict[str, Any]:
    """The leaves of a tree of parameters by their names, as "encoder/blocks/layer_0/..."."""
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: isinstance(x, tuple))
    return {"/".join(key.key for key in path): leaf for path, leaf in leaves}


def made_fresh(config: StartConfig, name: str) -> bool:
    """Whether START_FRESH names a parameter."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in config.fresh)


def check(config: StartConfig, there: Params, wanted: Params, axes: Params) -> None:
    """Raises UserError where a parameter cannot be made of what is there, by its name.

    Args:
      there, wanted: shapes, of the model started from and of the new one.
      axes: the new model's logical axes.
    """
    found, own_axes = named(there), named(axes)
    _check_named(config, found, [*named(wanted)])
    for name, leaf in named(wanted).items():
        if made_fresh(config, name):
            continue
        if name not in found:
            raise UserError(
                f"START_FROM={config.from_run!r} has no {name}, which this model has: let it be "
                f"new with START_FRESH=({name!r},), or start from another run."
            )
        _check_shape(config, name, found[name].shape, leaf.shape, _counted(name, own_axes[name]))


def _check_named(config: StartConfig, there: dict[str, Any], wanted: list[str]) -> None:
    """What START_FRESH and START_EXPERTS name must be there."""
    for pattern in config.fresh:
        if not fnmatch.filter(wanted, pattern):
            raise UserError(
                f"START_FRESH={tuple(config.fresh)!r}: {pattern!r} is no parameter of this model: "
                f"name some as in model_info.txt, such as {sorted(wanted)[0]!r}."
            )
    if config.experts is None:
        return
    E = next((leaf.shape[-1] for name, leaf in there.items() if name.endswith(_ROUTER)), 0)
    chosen = [*config.experts]
    if not chosen or len({*chosen}) < len(chosen) or not {*chosen} <= {*range(E)}:
        numbers = f"different numbers from 0 to {E - 1}" if E else "None"
        raise UserError(
            f"START_EXPERTS={tuple(chosen)!r} must be {numbers}: START_FROM={config.from_run!r} "
            f"has {E or 'no'} experts."
        )


def _counted(name: str, axes: tuple[str | None, ...]) -> tuple[str | None, ...]:
    """What each dimension counts, by its axis; a router's last one counts experts."""
    return (*axes[:-1], "expert") if name.endswith(_ROUTER) else axes


def _check_shape(
    config: StartConfig,
    name: str,
    there: tuple[int, ...],
    wanted: tuple[int, ...],
    axes: tuple[str | None, ...],
) -> None:
    what = f"START_FROM={config.from_run!r} has {name} of the shape {list(there)}, and this model"
    if len(there) != len(wanted):
        raise UserError(f"{what} of {list(wanted)}: start from another run, or make it new.")
    for old, new, axis in zip(there, wanted, axes, strict=True):
        rule = _RULES.get(axis or "")
        kept = len(config.experts) if rule == "experts" and config.experts is not None else old
        if kept == new:
            continue
        if rule is None:
            raise UserError(
                f"{what} of {list(wanted)}: only experts, layers and vocabulary may differ. "
                f"Set the sizes of that run, or let it be new with START_FRESH=({name!r},)."
            )
        if new < kept:
            advice = {
                "experts": "choose which to keep with START_EXPERTS",
                "layers": "a shallower model cannot start from it",
                "vocabulary": "a shorter vocabulary cannot start from it",
            }[rule]
            raise UserError(f"{what} of {list(wanted)}: {advice}.")
        if rule not in config.changes:
            raise UserError(
                f"{what} of {list(wanted)}: set START_CHANGES=({rule!r},) to allow that, or the "
                "sizes of that run."
            )


def adapt(
    config: StartConfig, there: Params, fresh: Params, axes: Params, key: jax.Array
) -> Params:
    """The new model's parameters; traceable.

    Args:
      there: parameters of the model started from, which `check` has seen.
      fresh: new ones of the new model; only those that START_FRESH names are used.
      axes: the new model's logical axes.
      key: of START_NOISE.
    """
    found, own_axes = named(there), named(axes)

    def of(path: tuple, leaf: jax.Array) -> jax.Array:
        name = "/".join(part.key for part in path)
        if made_fresh(config, name):
            return leaf
        made = found[name]
        for dimension, axis in enumerate(_counted(name, own_axes[name])):
            rule, size = _RULES.get(axis or ""), leaf.shape[dimension]
            if rule == "experts" and config.experts is not None:
                made = jnp.take(made, jnp.asarray(config.experts), dimension)
            if rule and made.shape[dimension] != size:
                made = _WAYS[rule](made, dimension, size)
                if rule == "experts":
                    own = jax.random.fold_in(key, sorted(own_axes).index(name))
                    made = _with_noise(made, dimension, found[name], config, own)
        return made

    return jax.tree_util.tree_map_with_path(of, fresh)


def _more_experts(array: jax.Array, dimension: int, size: int) -> jax.Array:
    """Expert e is the copy of expert e modulo as many as there were."""
    return jnp.take(array, jnp.arange(size) % array.shape[dimension], dimension)


def _more_layers(array: jax.Array, dimension: int, size: int) -> jax.Array:
    """Block i of n is the copy of the one at i / n of the depth."""
    return jnp.take(array, jnp.arange(size) * array.shape[dimension] // size, dimension)


def _more_words(array: jax.Array, dimension: int, size: int) -> jax.Array:
    """New rows are the mean of those there (Hewitt 2021): as probable as the average word."""
    shape = list(array.shape)
    shape[dimension] = size - shape[dimension]
    mean = jnp.broadcast_to(jnp.mean(array, dimension, keepdims=True), shape)
    return jnp.concatenate([array, mean], dimension)


_WAYS: dict[str, Callable[[jax.Array, int, int], jax.Array]] = {
    "experts": _more_experts,
    "layers": _more_layers,
    "vocabulary": _more_words,
}


def _with_noise(
    array: jax.Array, dimension: int, source: jax.Array, config: StartConfig, key: jax.Array
) -> jax.Array:
    """Noise on the copies alone: what was there stays what it was."""
    first = source.shape[dimension] if config.experts is None else len(config.experts)
    is_copy = jnp.arange(array.shape[dimension]) >= first
    shape = [1] * array.ndim
    shape[dimension] = -1
    scale = config.noise * jnp.sqrt(jnp.mean(jnp.square(source)))
    noise = scale * jax.random.normal(key, array.shape, array.dtype)
    return array + jnp.where(is_copy.reshape(shape), noise, 0)
