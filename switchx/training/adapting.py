"""One model's parameters as another's: more experts or fewer, other layers, a longer vocabulary.

What a parameter is made of, layer by layer, `switchx.training.counterparts` says. What one of its
dimensions counts is told by the name of its axis: one of the same size is taken as it is; of
another, by the rule of its axis.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from switchx.model import Params
from switchx.training.config import StartConfig
from switchx.training.merging import OF_EXPERT, merge

# Which rule a dimension of another size falls under, by the name of its logical axis.
RULES = {"expert": "experts", "vocab": "vocabulary"}
ROUTER = "router/kernel_DE"  # its experts lie along an axis without a name, since it is replicated
BIAS = "router/bias_E"  # and so do these


def named(tree: Params) -> dict[str, Any]:
    """The leaves of a tree of parameters by their names, as "encoder/blocks/layer_0/..."."""
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: isinstance(x, tuple))
    return {"/".join(key.key for key in path): leaf for path, leaf in leaves}


class Part(NamedTuple):
    """What a parameter, or one layer of it, is made of.

    Attributes:
      name, block: the other model's parameter, and the layer's index in it; None of no layer.
      merged: "encoder 3" of a feed-forward that is made of the experts of that layer there, of
        which `name` is one matrix.
    """

    name: str
    block: int | None = None
    merged: str = ""


Parts = dict[str, list[Part | None]]  # of each parameter one for each layer in it; None is new


def counted(name: str, axes: tuple[str | None, ...]) -> tuple[str | None, ...]:
    """What each dimension counts, by its axis; a router's last one counts experts."""
    return (*axes[:-1], "expert") if name.endswith((ROUTER, BIAS)) else axes


def adapt(
    config: StartConfig,
    parts: Parts,
    there: Params,
    fresh: Params,
    axes: Params,
    load: Mapping[str, jax.Array],
    key: jax.Array,
) -> Params:
    """The new model's parameters; traceable.

    Args:
      parts: what each is made of: see `switchx.training.counterparts`.
      there: parameters of the model started from.
      fresh: new ones of the new model; only those without a part are used.
      axes: the new model's logical axes.
      load: of each layer with experts there, by its name, their shares of the tokens, [E];
        only what START_FEED_FORWARDS needs.
      key: of START_NOISE.
    """
    found, own_axes = named(there), named(axes)

    def of(path: tuple, leaf: jax.Array) -> jax.Array:
        name = "/".join(part.key for part in path)
        taken = [part for part in parts[name] if part]
        if not taken:
            return leaf
        made = _stacked(config, taken, found, leaf, load)
        for dimension, axis in enumerate(counted(name, own_axes[name])):
            rule, size = RULES.get(axis or ""), leaf.shape[dimension]
            source = made
            if rule == "experts" and config.experts is not None:
                made = jnp.take(made, jnp.asarray(config.experts), dimension)
            if rule and made.shape[dimension] != size:
                made = _WAYS[rule](made, dimension, size)
                if rule == "experts":
                    own = jax.random.fold_in(key, sorted(own_axes).index(name))
                    made = _with_noise(made, dimension, source, config, own)
        if len(taken) == len(parts[name]):
            return made
        rows = iter(made)
        return jnp.stack([leaf[n] if p is None else next(rows) for n, p in enumerate(parts[name])])

    return jax.tree_util.tree_map_with_path(of, fresh)


def _stacked(
    config: StartConfig,
    parts: list[Part],
    found: Mapping[str, jax.Array],
    leaf: jax.Array,
    load: Mapping[str, jax.Array],
) -> jax.Array:
    """The parts of one parameter, one behind the other; of one source they are taken at once."""
    first, blocks = parts[0], [part.block for part in parts]
    if first.block is None:
        return found[first.name]
    if any(part.merged or part.name != first.name for part in parts):
        return jnp.stack([_layer(config, part, found, leaf, load) for part in parts])
    whole = found[first.name]
    is_whole = blocks == [*range(whole.shape[0])]
    return whole if is_whole else jnp.take(whole, jnp.asarray(blocks), 0)


def _layer(
    config: StartConfig,
    part: Part,
    found: Mapping[str, jax.Array],
    leaf: jax.Array,
    load: Mapping[str, jax.Array],
) -> jax.Array:
    if not part.merged or config.feed_forwards is None:
        return found[part.name][part.block]
    folder, _, matrix = part.name.rpartition("/")
    kept = jnp.asarray(config.experts) if config.experts is not None else slice(None)
    kernels = {name: found.get(f"{folder}/{name}") for name in OF_EXPERT}
    experts = {name: x[part.block][kept] for name, x in kernels.items() if x is not None}
    load_E = load[part.merged][kept] if load else None
    width = leaf.shape[1 if matrix == "wo_EFD" else 2]
    return merge(config.feed_forwards, experts, load_E, width)[OF_EXPERT[matrix]]


def _more_experts(array: jax.Array, dimension: int, size: int) -> jax.Array:
    """Expert e is the copy of expert e modulo as many as there were."""
    return jnp.take(array, jnp.arange(size) % array.shape[dimension], dimension)


def _more_words(array: jax.Array, dimension: int, size: int) -> jax.Array:
    """New rows are the mean of those there (Hewitt 2021): as probable as the average word."""
    shape = list(array.shape)
    shape[dimension] = size - shape[dimension]
    mean = jnp.broadcast_to(jnp.mean(array, dimension, keepdims=True), shape)
    return jnp.concatenate([array, mean], dimension)


_WAYS: dict[str, Callable[[jax.Array, int, int], jax.Array]] = {
    "experts": _more_experts,
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
