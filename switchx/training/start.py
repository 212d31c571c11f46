"""Where a run's first state comes from, unless its own checkpoints have one.

A new kind of start is a class with `begin`. What it did is written into the run's directory.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax

from switchx.model import Params
from switchx.training.state import Setup, TrainState


@dataclasses.dataclass(frozen=True)
class Started:
    """A first state, and what is written down of it: plain values for JSON.

    `record` says at least "from", "step" and "optimizer": "fresh" or "continued".
    """

    state: TrainState
    record: dict[str, Any]


def lines(record: Mapping[str, Any]) -> list[str]:
    """What a run that begins says of the state it took, beside where it is from."""
    said = {
        "changed": "of them of another shape there",
        "fresh": "parameters that are new",
        "left_out": "parameters there that are left out",
    }
    taken, merged = record.get("taken"), record.get("feed_forwards")
    said_of = [f"{taken} parameters taken from there"] * (taken is not None)
    if merged:
        layers, numbers = merged["layers"], merged.get("experts")
        if numbers:
            layers = [f"expert {n} of {of}" for of, n in zip(layers, numbers, strict=True)]
        of = f"{len(layers)} feed-forwards made of experts"
        said_of.append(f"{of}, {merged['way']!r}: {', '.join(layers)}")
    return said_of + [
        f"{len(record[name])} {what}: {', '.join(record[name])}"
        for name, what in said.items()
        if record.get(name)
    ]


class Start(Protocol):
    """Where parameters and optimizer state come from."""

    def begin(self, setup: Setup) -> Started:
        """The first state, each array where it belongs; the same at every call.

        Raises:
          UserError: what it is to come from is not there, or is of another model.
        """
        ...


class Fresh:
    """New parameters from the run's seed, at step 0."""

    def begin(self, setup: Setup) -> Started:
        return Started(setup.init(), {"from": "fresh", "step": 0, "optimizer": "fresh"})


FRESH = Fresh()


class Arrays(Protocol):
    """Parameters of elsewhere, with or without an optimizer's state."""

    def params(self, abstract: Params) -> Params:
        """The parameters, laid out like `abstract` (jax.ShapeDtypeStruct with shardings).

        Raises:
          UserError: an array is missing, left over, or of another shape.
        """
        ...

    def opt_state(self, abstract: Any) -> Any | None:
        """The optimizer's state, laid out like `abstract`; None where there is none."""
        ...


@dataclasses.dataclass(frozen=True)
class Given:
    """Parameters that are there already, such as an import's or an upcycled model's.

    The optimizer goes on from their state where there is one, and starts afresh where there is
    none; the learning rate is that of `step` in either case.

    Attributes:
      step: at which the run goes on.
      origin: what the record says of where they come from; it has "from".
    """

    arrays: Arrays
    step: int
    origin: Mapping[str, Any]

    def begin(self, setup: Setup) -> Started:
        params = self.arrays.params(setup.abstract.params)
        opt_state = self.arrays.opt_state(setup.abstract.opt_state)
        kept = "fresh" if opt_state is None else "continued"
        state = state_at(setup, self.step, params, opt_state)
        return Started(state, {**self.origin, "step": self.step, "optimizer": kept})


def state_at(setup: Setup, step: int, params: Params, opt_state: Any | None = None) -> TrainState:
    """The state of a step with these parameters, and a fresh optimizer where none is given.

    The learning rate is that of the step.
    """
    if opt_state is None:
        with jax.set_mesh(setup.mesh):
            init = jax.jit(setup.optimizer.init, out_shardings=setup.shardings.opt_state)
            opt_state = init(params)
    at = jax.device_put(jnp.int32(step), setup.shardings.step)
    return TrainState(at, params, _at_step(opt_state, step))


def _at_step(opt_state: Any, step: int) -> Any:
    """Moves the learning rate's schedule to `step`; moments keep their own counts."""

    def is_schedule(node: Any) -> bool:
        return isinstance(node, optax.ScaleByScheduleState)

    def move(node: Any) -> Any:
        if not is_schedule(node):
            return node
        return node._replace(count=jax.device_put(jnp.int32(step), node.count.sharding))

    return jax.tree.map(move, opt_state, is_leaf=is_schedule)
