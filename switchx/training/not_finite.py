"""What was not finite in a step, and what of it was the first: parameters, layers, gradients."""

import dataclasses
import json
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from switchx import hosts, storage
from switchx.model import Noise, Params
from switchx.model.ranges import PARTS, Range
from switchx.training.adafactor import global_norm
from switchx.training.bad_loss import BadLoss
from switchx.training.batches import Batch
from switchx.training.state import Setup, TrainState
from switchx.training.step import gradients, split_rows

# Names of parameters in the order in which a forward pass comes to them.
_ORDER = (
    *("embedding", "encoder_bias", "encoder", "encoder_norm"),
    *("decoder_bias", "decoder", "decoder_norm"),
    *("attention_norm", "attention", "attention_bias", "cross_norm", "cross_attention"),
    *("feed_forward", "norm", "switch", "router", "experts", "dense"),
)


@dataclasses.dataclass(frozen=True)
class Part:
    """One array, or one layer's part of one: see Range."""

    name: str
    not_finite: int
    largest: float


@dataclasses.dataclass(frozen=True)
class Findings:
    """A step computed again, from the parameters before it.

    Attributes:
      batch: its arrays of floats.
      parameters, layers: in the order of the forward pass.
      loss, norm: whether it is finite now, and whether the gradients' norm is.
      gradients: in the order of the backward pass, by parameter: from the loss to the inputs.
    """

    batch: list[Part]
    parameters: list[Part]
    layers: list[Part]
    loss: bool
    norm: bool
    gradients: list[Part]

    def first(self) -> tuple[str, str]:
        """Of what kind and name the first is that was not finite; ("nothing", "") if all was."""
        kinds = {"batch": self.batch, "parameter": self.parameters, "layer": self.layers}
        for kind, parts in kinds.items():
            for part in parts:
                if part.not_finite:
                    return kind, part.name
        if not self.loss:
            return "loss", ""
        wrong = [part.name for part in self.gradients if part.not_finite]
        if wrong:
            return "gradient", wrong[0]
        if not self.norm:
            return "norm", max(self.gradients, key=lambda part: part.largest).name
        return "nothing", ""

    def sentence(self) -> str:
        """What a person is told."""
        kind, name = self.first()
        layer = next((part.name for part in self.layers if part.not_finite), None)
        then = f", and of what was computed {layer}" if layer else ""
        says = {
            "batch": f"the batch's {name} was not finite{then}",
            "parameter": f"the parameter {name} was not finite before the step{then}",
            "layer": f"the first that was not finite is what {name} computed",
            "loss": "all layers were finite, and the loss was not",
            "gradient": f"the loss was finite, and of the gradients first that of {name} was not",
            "norm": f"all gradients were finite, and too large to be squared, first {name}",
            "nothing": "computed again, all was finite: the device may be at fault",
        }
        return says[kind]


class Inquiry:
    """Computes bad steps again, on all hosts alike, and writes down what was not finite."""

    def __init__(self, setup: Setup, model_dir: Any):
        self._setup, self._folder = setup, storage.as_path(model_dir)
        self._compiled: tuple[Any, Any] | None = None

    def look_into(self, bad: BadLoss, drawn: int, params: Params, batch: Batch) -> str:
        """Writes bad_loss.<drawn>.json, and returns a line on it.

        Args:
          drawn: batches up to the bad one, those that were skipped included.
          params: those before the step.
        """
        found = self._find(bad.step - 1, params, batch)
        path = self._folder / f"bad_loss.{drawn}.json"
        if hosts.is_first():
            kind, name = found.first()
            loss = bad.loss if math.isfinite(bad.loss) else None
            record: dict[str, Any] = {"step": bad.step, "batch": drawn, "loss": loss}
            record |= {"why": bad.why, "first": {"kind": kind, "name": name}}
            record |= {"found": dataclasses.asdict(found)}
            storage.write_whole(path, json.dumps(record, indent=1, allow_nan=False) + "\n")
        return f"The loss at step {bad.step}: {found.sentence()}; {path} has every part"

    def _find(self, step: int, params: Params, batch: Batch) -> Findings:
        setup = self._setup
        arguments = (np.int32(step), params, setup.constants, batch)
        with jax.set_mesh(setup.mesh):
            if self._compiled is None:
                self._compiled = (
                    self._compile(_forward, *arguments),
                    self._compile(_backward, *arguments),
                )
                hosts.compiled_everywhere("look into a loss")
            forward, backward = self._compiled
            computed = jax.device_get(forward(*arguments))
            inputs, of_params, of_grads, *values = jax.device_get(backward(*arguments))
        loss, norm = np.isfinite(values).tolist()
        return Findings(
            batch=[_part(name, each) for name, each in inputs.items()],
            parameters=list(_parameters(setup, of_params)),
            layers=list(_layers(setup, computed)),
            loss=loss,
            norm=norm,
            gradients=list(_parameters(setup, of_grads))[::-1],
        )

    def _compile(self, function: Any, *arguments: Any) -> Any:
        everywhere = NamedSharding(self._setup.mesh, PartitionSpec())
        jitted = jax.jit(lambda *each: function(self._setup, *each), out_shardings=everywhere)
        return jitted.lower(*arguments).compile()


def _forward(
    setup: Setup, step: jax.Array, params: Params, constants: Any, batch: Batch
) -> dict[str, Any]:
    """The ranges of all that the model computes, over the parts that a step has."""
    parts, rows = setup.run.trainer.microbatches, setup.run.batch.batch_size

    def watched(part: tuple[Batch, jax.Array]) -> dict[str, Any]:
        noise = Noise.for_rows(setup.numbers.seed, step, part[1])
        return setup.objective.ranges(params, constants, part[0], noise)

    whole = (batch, jnp.arange(rows, dtype=jnp.uint32))
    if parts == 1:
        return watched(whole)
    each = jax.lax.map(watched, jax.tree.map(lambda x: split_rows(x, parts, setup.mesh), whole))
    return jax.tree.map(
        lambda of: Range(of.not_finite.sum(axis=0), of.largest.max(axis=0)), each, is_leaf=_is_range
    )


def _backward(
    setup: Setup, step: jax.Array, params: Params, constants: Any, batch: Batch
) -> tuple[dict[str, Range], Any, Any, jax.Array, jax.Array]:
    """The ranges of batch, parameters and gradients, the objective, and the gradients' norm."""
    grads, outcome = gradients(setup, TrainState(step, params, None), constants, batch)

    def ranges(x: jax.Array, axes: tuple[str | None, ...]) -> Range:
        return Range.of(x, leading=int(axes[:1] == ("layers",)))

    floats = {name: x for name, x in batch.items() if jnp.issubdtype(x.dtype, jnp.floating)}
    inputs = {name: Range.of(x) for name, x in floats.items()}
    axes = setup.model.axes
    of_params = jax.tree.map(ranges, params, axes)
    of_grads = jax.tree.map(ranges, grads, setup.trained(axes))
    return inputs, of_params, of_grads, outcome.sums["objective"], global_norm(grads)


def _layers(setup: Setup, ranges: dict[str, Any]) -> Iterator[Part]:
    for stack, shape in setup.run.model.stacks.items():
        of = ranges[stack]
        yield _part(f"{stack} embedding", of["embedding"])
        for number in range(shape.num_layers):
            blocks, layer, block = shape.place(number)
            found = of[blocks][f"layer_{layer}"]
            for name in (name for name in PARTS if name in found):
                yield _part(f"{stack} {number} {name}", found[name], block)
        yield _part(f"{stack} output", of["output"])
    yield _part("logits", of["logits"])  # of the last stack


def _parameters(setup: Setup, ranges: Params) -> Iterator[Part]:
    """In the order of the forward pass; a layer's part of a stacked parameter by its number."""
    found: list[tuple[Any, Part]] = []
    for path, each in jax.tree_util.tree_leaves_with_path(ranges, is_leaf=_is_range):
        names = [key.key for key in path]
        if not np.ndim(each.largest):
            last = names[-1] == "logits_DV"
            key = (len(_ORDER) if last else _rank(names[0]), 0, list(map(_rank, names)))
            found.append((key, _part("/".join(names), each)))
            continue
        stack, blocks, layer, *rest = names
        for n, number in enumerate(setup.run.model.stacks[stack].layers_of(blocks, layer)):
            key = (_rank(stack), number, list(map(_rank, rest)))
            found.append((key, _part(f"{stack} {number} {'/'.join(rest)}", each, n)))
    yield from (part for _, part in sorted(found, key=lambda item: item[0]))


def _rank(name: str) -> int:
    return _ORDER.index(name) if name in _ORDER else len(_ORDER)


def _part(name: str, of: Range, row: int | None = None) -> Part:
    at = () if row is None else row
    return Part(name, int(np.asarray(of.not_finite)[at]), float(np.asarray(of.largest)[at]))


def _is_range(node: Any) -> bool:
    return isinstance(node, Range)
