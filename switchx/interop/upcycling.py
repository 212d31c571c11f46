"""Sparse upcycling (Komatsuzaki et al. 2022): a switch model that starts from a dense one.

Every expert starts as the feed-forward it takes the place of; the router is fresh, and all else
stays. An expert that is narrower has a part of its units, the next expert the next part; one that
is wider has them again, their outputs divided by how often they are there. As in the paper's
language models the step goes on, and with it the learning rate's schedule, while the optimizer's
moments start afresh.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from switchx.errors import UserError
from switchx.interop.source import SpecialIds
from switchx.model import Model, ModelConfig, Params
from switchx.training.config import RunConfig
from switchx.training.merging import OF_EXPERT

_FEED_FORWARD = ("feed_forward", "dense")
_EXPERTS = ("feed_forward", "switch", "experts")
_ROUTER = ("feed_forward", "switch", "router")

# May differ between the two: everything else of a model is kept by its parameters.
_FREE = ("switch", "dropout_rate", "init_scale", "dtype", "remat", "scan")


def check_sizes(dense: ModelConfig, wanted: ModelConfig, from_dir: str) -> None:
    """Raises UserError unless `wanted` is `dense` with switch layers."""
    if dense.switch is not None:
        raise UserError(
            f"--from_dir={from_dir} holds a model that has switch layers already: "
            "name a dense model's run."
        )
    if wanted.switch is None:
        raise UserError(
            "ModelConfig.switch=None makes a dense model: name a configuration with switch layers."
        )
    for field in dataclasses.fields(ModelConfig):
        there, here = getattr(dense, field.name), getattr(wanted, field.name)
        if field.name not in _FREE and there != here:
            raise UserError(
                f"ModelConfig.{field.name}={here!r}, but the dense model in --from_dir={from_dir} "
                f"has {there!r}, which upcycling keeps."
            )


class Upcycled:
    """A dense model, as a `switchx.interop.Source` of a switch model; see there."""

    model_fields: dict[str, Any]
    step: int | None
    notes: list[str]
    special: SpecialIds | None = None
    vocabulary: bytes | None = None

    def __init__(self, run: RunConfig, mesh: Mesh, dense: Params, step: int):
        """`dense` lies on `mesh`, on which the switch model of `run` is made; `step` goes on."""
        self.model_fields, self.notes, self.step = {}, [], step
        self._run, self._mesh, self._dense = run, mesh, dense

    def params(self, abstract: Params) -> Params:
        """The switch model's parameters; each expert's copy is made where it belongs."""
        model = Model.of(self._run.model)

        def make(dense: Params, key: jax.Array) -> Params:
            # Of the fresh parameters only the routers are used: the others are never computed.
            return upcycle(self._run.model, dense, model.init(key))

        shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
        with jax.set_mesh(self._mesh):
            key = jax.random.key(self._run.trainer.seed)
            return jax.jit(make, out_shardings=shardings)(self._dense, key)

    def opt_state(self, abstract: Any) -> None:
        """None: its moments are of other parameters."""


def upcycle(config: ModelConfig, dense: Params, fresh: Params) -> Params:
    """A switch model's parameters from those of a dense model of the same sizes.

    Args:
      config: the switch model's.
      dense: the dense model's parameters; its blocks have one layer each, in one row.
      fresh: the switch model's, of which the routers are taken.

    Raises:
      UserError: the switch model has parameters that the dense one has no counterpart of.
    """

    used: dict[tuple[str, ...], tuple[str, ...]] = {}

    def of(path: tuple, leaf: jax.Array) -> jax.Array:
        names = tuple(key.key for key in path)
        if not names[1].startswith("blocks"):
            return _same_shape(_find(dense, names, names), leaf, names)
        stack, blocks, layer, *below = names
        rest = tuple(below)
        if rest[:3] == _ROUTER:
            return leaf
        source, copied = rest, rest[:3] == _EXPERTS
        if copied:
            source = (*_FEED_FORWARD, OF_EXPERT.get(rest[-1], rest[-1]))
        # Those of all widths are one successor.
        owner = (stack, blocks, layer, *_EXPERTS, rest[-1]) if copied else names
        other = used.setdefault((stack, blocks, layer, *source), owner)
        if other != owner:  # SwitchConfig.extra_dense: the layer would do its work twice
            raise UserError(
                f"The switch model's {'/'.join(other)} and {'/'.join(owner)} would both start as "
                f"the dense model's {'/'.join(source)}; upcycling gives each part one successor."
            )
        of_all_layers = _find(dense, (stack, "blocks", "layer_0", *source), names)
        layers = config.stacks[stack].layers_of(blocks, layer)
        own = of_all_layers[layers.start : layers.stop : layers.step]
        if copied:
            own = _for_experts(own, leaf.shape, outputs=rest[-1] == "wo_EFD")
        return _same_shape(own, leaf, names)

    return jax.tree_util.tree_map_with_path(of, fresh)


def _for_experts(own: jax.Array, shape: tuple[int, ...], outputs: bool) -> jax.Array:
    """A dense matrix of each block, for its experts, whose width may be another.

    Args:
      own: [N, D, F], or [N, F, D] of `outputs`.
      shape: of the experts', with E in the second place.
    """
    E, axis = shape[1], 1 if outputs else 2
    F, wanted = own.shape[axis], shape[axis + 1]
    if wanted == F:
        return jnp.broadcast_to(own[:, None], (own.shape[0], E, *own.shape[1:]))
    unit_EF = (np.arange(E)[:, None] * wanted + np.arange(wanted)) % F
    own = jnp.moveaxis(jnp.take(own, unit_EF.reshape(-1), axis), axis, 1)
    own = own.reshape(own.shape[0], E, wanted, -1)
    if not outputs:
        return own.swapaxes(2, 3)
    times_EF = np.stack([np.bincount(unit_F, minlength=F)[unit_F] for unit_F in unit_EF])
    return own / times_EF[..., None].astype(np.float32)


def _find(dense: Params, path: tuple[str, ...], wanted: tuple[str, ...]) -> jax.Array:
    node: Any = dense
    for name in path:
        if not isinstance(node, dict) or name not in node:
            raise UserError(
                f"The switch model's {'/'.join(wanted)} has no counterpart in a dense model: "
                "upcycling makes experts of feed-forwards and keeps everything else."
            )
        node = node[name]
    return node


def _same_shape(own: jax.Array, leaf: jax.Array, names: tuple[str, ...]) -> jax.Array:
    if own.shape != leaf.shape:
        raise UserError(
            f"The dense model makes {'/'.join(names)} of the shape {list(own.shape)}, "
            f"and the switch model's is {list(leaf.shape)}."
        )
    return own
