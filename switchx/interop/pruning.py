"""Pruning: a model of a part of another's experts, its parameters and its configuration.

A layer keeps its router over fewer experts, whose columns alone are left, or becomes the dense
layer that its one kept expert is: a router of one expert gives it every token with a gate of 1.
All switch layers of a model have as many experts, so there is no third way.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from switchx.errors import UserError
from switchx.interop.source import SpecialIds
from switchx.model import Model, ModelConfig, Params
from switchx.training.merging import OF_EXPERT
from switchx.training.state import Setup

# Parameters of a dense layer, and which of an expert's each of them is.
_DENSE = {
    "feed_forward": {dense: of_expert for of_expert, dense in OF_EXPERT.items()},
    "attention": {
        "query_DT": "query_EDT",
        "key_DT": "key_value_EDT",
        "value_DT": "key_value_EDT",
    },
}


# What makes an expert's output of its last product, so that both grow alike.
_LAST = ("wo_EFD", "query_EDT", "key_value_EDT")


class Routed(NamedTuple):
    """What has a router: `part` ("feed_forward" or "attention") of a layer of a stack."""

    stack: str
    layer: int
    part: str


def routed(config: ModelConfig) -> list[Routed]:
    """All of a model, in the order of `switchx.training.metrics.layer_names`."""
    switch = config.switch
    if switch is None:
        return []
    there = {"attention": switch.in_attention, "feed_forward": switch.in_feed_forward}
    return [
        Routed(stack, layer, part)
        for stack, shape in config.stacks.items()
        for layer in shape.sparse_layers
        for part in there
        if there[part]
    ]


@dataclasses.dataclass(frozen=True)
class Kept:
    """Which experts stay.

    Attributes:
      experts: their numbers, in order; as many in all layers that keep a router, one in others.
      dense: the layers without a router, of each stack; numbers.
      scales: what the outputs of all experts of a layer, kept or not, are multiplied with; without
        an entry they stay.
    """

    experts: Mapping[Routed, tuple[int, ...]]
    dense: Mapping[str, frozenset[int]]
    scales: Mapping[Routed, tuple[float, ...]] = dataclasses.field(default_factory=dict)

    def is_dense(self, of: Routed) -> bool:
        return of.layer in self.dense.get(of.stack, ())

    @property
    def all_dense(self) -> bool:
        return all(map(self.is_dense, self.experts))

    @property
    def most(self) -> int:
        """Experts of a layer that keeps its router."""
        return max(map(len, self.experts.values()))

    def fields(self, config: ModelConfig) -> dict[str, Any]:
        """What the pruned model's configuration says otherwise, by names of gin parameters."""
        if self.all_dense:
            return {"ModelConfig.switch": None}
        found: dict[str, Any] = {"SwitchConfig.num_experts": self.most}
        for stack, shape in config.stacks.items() if any(self.dense.values()) else ():
            there = shape.sparse_layers
            found[f"SwitchConfig.{stack}_sparse"] = tuple(
                layer for layer in there if layer not in self.dense.get(stack, ())
            )
        return found


def prune(config: ModelConfig, wanted: ModelConfig, kept: Kept, params: Params) -> Params:
    """The pruned model's parameters; traceable.

    Args:
      config, params: of the whole model.
      wanted: the pruned model, as `Kept.fields` says it.
    """

    def of(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        names = tuple(key.key for key in path)
        if not names[1].startswith("blocks"):
            return _find(params, names)
        stack, blocks, layer, *rest = names
        rows = [
            _of_layer(config, kept, params, stack, number, tuple(rest))
            for number in wanted.stacks[stack].layers_of(blocks, layer)
        ]
        return jnp.stack(rows)

    return jax.tree_util.tree_map_with_path(of, Model.of(wanted).shapes)


def _of_layer(
    config: ModelConfig,
    kept: Kept,
    params: Params,
    stack: str,
    number: int,
    rest: tuple[str, ...],
) -> jax.Array:
    """One layer's parameter, by its name within the pruned model's layer."""
    place = config.stacks[stack].place(number)
    row = (stack, place.blocks, f"layer_{place.layer}")
    own = Routed(stack, number, rest[0])
    experts = jnp.asarray(kept.experts.get(own, ()), jnp.int32)
    of_dense = _DENSE.get(own.part, {}).get(rest[-1]) if own in kept.experts else None
    if rest[1:2] != ("switch",) and of_dense is None:
        return _find(params, (*row, *rest))[place.block]
    there = rest if of_dense is None else (own.part, "switch", "experts", of_dense)
    whole = _find(params, (*row, *there))[place.block]
    # The router's experts are its columns; whatever else there is of each expert comes first.
    left = jnp.take(whole, experts, axis=-1 if there[2] == "router" else 0)
    if there[-1] in _LAST and own in kept.scales:
        left = left * jnp.asarray(kept.scales[own], left.dtype)[experts][:, None, None]
    return left if of_dense is None else left[0]


def _find(params: Params, path: tuple[str, ...]) -> jax.Array:
    found = functools.reduce(lambda node, name: node[name], path, params)
    assert isinstance(found, jax.Array)
    return found


def pruned(setup: Setup, config: ModelConfig, kept: Kept, params: Params) -> Params:
    """The same, each parameter where the pruned run's `setup` has it."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, setup.abstract.params)
    make = functools.partial(prune, config, setup.run.model, kept)
    with jax.set_mesh(setup.mesh):
        return jax.jit(make, out_shardings=shardings)(params)


@dataclasses.dataclass
class Pruned:
    """A pruned model that is there, as a `switchx.interop.Source`; see there."""

    made: Params
    step: int | None
    model_fields: dict[str, Any] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    special: SpecialIds | None = None
    vocabulary: bytes | None = None

    def params(self, abstract: Params) -> Params:
        """The parameters, which lie where they are wanted."""
        return jax.tree.map(lambda x, to: jax.device_put(x, to.sharding), self.made, abstract)

    def opt_state(self, abstract: Any) -> None:
        """None: its moments are of more parameters."""


def check_prunable(
    config: ModelConfig, from_dir: str, experts: int | None, makes_dense: bool
) -> None:
    """Raises UserError where a model cannot be pruned so.

    Args:
      experts: of each layer that keeps its router; None: there are none.
      makes_dense: whether layers become dense.
    """
    switch = config.switch
    if switch is None:
        raise UserError(
            f"--from_dir={from_dir} holds a dense model, which has no experts to take out: name a "
            "run with switch layers."
        )
    if switch.encoder_routing != "tokens_choose":
        raise UserError(
            f"--from_dir={from_dir} has SwitchConfig.encoder_routing={switch.encoder_routing!r}, "
            "by which all experts get as many tokens: name a run whose tokens choose."
        )
    if switch.expert_widths is not None:
        raise UserError(
            f"--from_dir={from_dir} has SwitchConfig.expert_widths={switch.expert_widths!r}, and "
            "its layers would keep different ones: name a run whose experts have the model's d_ff."
        )
    if makes_dense and switch.extra_dense:
        raise UserError(
            f"--from_dir={from_dir} has SwitchConfig.extra_dense=True, a dense feed-forward behind "
            "the experts, where a dense layer has one: keep routers with --experts alone."
        )
    E, least = switch.num_experts, switch.top_k
    if experts is not None and not least <= experts < E:
        accepted = f"from {least} to {E - 1}" if least < E else "left out for --to_dense"
        raise UserError(
            f"--experts={experts} must be {accepted}: the model in --from_dir={from_dir} has "
            f"NUM_EXPERTS={E}, of which each token uses {least}."
        )


def best(score_E: np.ndarray, n: int) -> tuple[int, ...]:
    """The numbers of the n experts of the largest scores, in order; of equal ones the first."""
    return tuple(sorted(np.argsort(-score_E, kind="stable")[:n].tolist()))


def keep(score_NE: Sequence[np.ndarray], of: Sequence[Routed], n: int, dense: bool) -> Kept:
    """The best n of every layer, whose router is left out where `dense`."""
    experts = {one: best(score_E, n) for one, score_E in zip(of, score_NE, strict=True)}
    stacks = {one.stack for one in of} if dense else set()
    layers = {s: frozenset(one.layer for one in of if one.stack == s) for s in stacks}
    return Kept(experts, layers)


def spread(score_NE: Sequence[np.ndarray], of: Sequence[Routed], n: int, least: int) -> Kept:
    """At most n experts a layer on average, where they keep the most of the layers' scores: some
    layers have as many as all of these, the others one and no router.

    Args:
      n: at least 2, and at least `least`.
      least: experts of a layer with a router.
    """
    layers = list(dict.fromkeys((one.stack, one.layer) for one in of))
    L, E = len(layers), len(score_NE[0])
    gain_LE = np.zeros((L, E))  # of e + 1 experts, above what one alone keeps
    for one, score_E in zip(of, score_NE, strict=True):
        ranked_E = -np.sort(-score_E) / max(float(score_E.sum()), 1e-30)
        gain_LE[layers.index((one.stack, one.layer))] += np.cumsum(ranked_E) - ranked_E[0]
    most, size, chosen = -1.0, least, np.arange(L)
    for each in range(max(least, 2), E + 1):
        room = L * (n - 1) // (each - 1)
        order = np.argsort(-gain_LE[:, each - 1], kind="stable")[:room]
        gained = float(gain_LE[order, each - 1].sum())
        if gained > most:
            most, size, chosen = gained, each, order
    sparse = {layers[i] for i in chosen}
    experts = {
        one: best(score_E, size if (one.stack, one.layer) in sparse else 1)
        for one, score_E in zip(of, score_NE, strict=True)
    }
    dense = {
        stack: frozenset(layer for at, layer in layers if at == stack and (at, layer) not in sparse)
        for stack in dict.fromkeys(stack for stack, _ in layers)
    }
    return Kept(experts, dense)
