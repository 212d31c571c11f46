"""A first state from another run's checkpoint: START_FROM."""

import dataclasses
import fnmatch
import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from switchx.errors import UserError
from switchx.model import Model, ModelConfig, Params
from switchx.model.groups import group_of
from switchx.training.adapting import Parts, adapt, named
from switchx.training.checkpoints.identity import frozen_in, read_identity
from switchx.training.checkpoints.reading import restore_opt_state, restore_params_to
from switchx.training.config import CONTINUE, RunConfig, StartConfig
from switchx.training.counterparts import merged_in, parts_of, record_of
from switchx.training.expert_load import recorded_load
from switchx.training.freezing import is_frozen, trained
from switchx.training.merging import NEED_LOAD
from switchx.training.placing import abstract_params
from switchx.training.start import Given, Started
from switchx.training.state import Setup


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """Starts from a checkpoint of another run (`switchx.training.start.Start`).

    Attributes:
      config: what is taken of it, and how.
      model_dir, model, step: the other run's directory, its model, and the checkpoint's step.
      measure: gives the load of each layer's experts where that run has recorded none, as
        `switchx.training.expert_load` has it; None where it cannot be measured.
    """

    config: StartConfig
    model_dir: Path
    model: ModelConfig
    step: int
    measure: Callable[[], Mapping[str, np.ndarray]] | None = None

    @property
    def first_step(self) -> int:
        """The step at which the new run begins."""
        return self.step if self.config.step == CONTINUE else 0

    def check(self, run: RunConfig) -> None:
        """Raises UserError where the two models do not fit; allocates nothing."""
        there, wanted = Model.of(self.model), Model.of(run.model)
        self._check_widths(run.model, wanted)
        self.parts(wanted)
        self._check_load()
        if self.config.optimizer:
            self._check_optimizer(run, there, wanted)

    def _check_widths(self, wanted: ModelConfig, model: Model) -> None:
        """Raises UserError where an expert would start as one of another width."""
        config, here, there = self.config, wanted.expert_widths, self.model.expert_widths
        if max(len(here), len(there)) < 2:  # what differs is seen by the shapes
            return
        has = f"START_FROM={config.from_run!r} has experts of the widths {there!r}"
        merged = None if config.feed_forwards == "fresh" else config.feed_forwards
        for name, value in (("START_EXPERTS", config.experts), ("START_FEED_FORWARDS", merged)):
            if value is not None:
                raise UserError(
                    f"{name}={value!r} is of experts that all have one width, and {has}, this "
                    f"model of {here!r}: leave it out."
                )
        names = [name for name in named(model.shapes) if group_of(name) == "experts"]
        fresh = all(any(fnmatch.fnmatchcase(n, each) for each in config.fresh) for n in names)
        if here != there and not fresh and "sizes" not in config.changes:
            raise UserError(
                f"{has}, and this model of {here!r}: set SwitchConfig.expert_widths to those, or "
                "let experts and routers be new with START_FRESH=('*/switch/*',)."
            )

    def _check_optimizer(self, run: RunConfig, there: Model, wanted: Model) -> None:
        """Raises UserError where the other run has no optimizer state for this one."""
        name = self._identity.get("optimizer", run.optimizer.name)
        if name != run.optimizer.name:
            raise UserError(
                f"START_OPTIMIZER=True, but START_FROM={self.config.from_run!r} was trained with "
                f"OPTIMIZER={name!r}, and this run with {run.optimizer.name!r}: set that, or leave "
                "START_OPTIMIZER out."
            )
        if named(trained(there.shapes, ())) != named(trained(wanted.shapes, ())):
            raise UserError(
                "START_OPTIMIZER=True needs a model of the same shapes: the optimizer's state of "
                f"START_FROM={self.config.from_run!r} is of others."
            )
        frozen = self.frozen
        for name in sorted(named(trained(wanted.shapes, run.optimizer.frozen))):
            if is_frozen(frozen, name):
                raise UserError(
                    f"START_OPTIMIZER=True, but START_FROM={self.config.from_run!r} was trained "
                    f"with FREEZE={frozen!r} and has no optimizer state of {name}: freeze that "
                    "here too, or leave START_OPTIMIZER out."
                )

    def parts(self, wanted: Model) -> Parts:
        """What each parameter of a model is made of.

        Raises:
          UserError: one cannot be made of what is there.
        """
        return parts_of(self.config, Model.of(self.model), wanted)

    @functools.cached_property
    def load(self) -> Mapping[str, np.ndarray]:
        """Of each layer with experts their shares of the tokens; {} where none are asked for."""
        if self.config.feed_forwards not in NEED_LOAD:
            return {}
        return self._recorded or (self.measure() if self.measure else {})

    @functools.cached_property
    def _recorded(self) -> dict[str, np.ndarray]:
        return recorded_load(self.model_dir, self.model, self.step)

    def _check_load(self) -> None:
        """Raises UserError where START_FEED_FORWARDS asks for what nothing tells."""
        way = self.config.feed_forwards
        if way in NEED_LOAD and not self._recorded and self.measure is None:
            raise UserError(
                f"START_FEED_FORWARDS={way!r} needs how much each expert is used, and "
                f"START_FROM={self.config.from_run!r} has recorded none up to step {self.step}, "
                "which only one host alone can measure: use 'mean', 'sum' or 'low_rank', or save "
                "a first checkpoint on one host."
            )

    @property
    def frozen(self) -> tuple[str, ...]:
        """FREEZE of the other run."""
        return frozen_in(self._identity)

    @functools.cached_property
    def _identity(self) -> dict[str, Any]:
        """Of the checkpoint; {} where it is damaged, which whoever restores it says."""
        try:
            return read_identity(self.model_dir, self.step)[0]
        except ValueError:
            return {}

    def check_vocabulary(self, vocabulary: str) -> None:
        """Raises UserError where the other run was trained with another vocabulary."""
        there = self._identity.get("vocabulary")
        if there not in (None, vocabulary) and "vocabulary" not in self.config.changes:
            raise UserError(
                f"START_FROM={self.config.from_run!r} was trained with another VOCABULARY: set "
                "that one, or START_CHANGES=('vocabulary',) where ids mean the same in both."
            )

    def begin(self, setup: Setup) -> Started:
        """The first state; what was taken, made fresh and left out is in its record."""
        there, wanted = named(Model.of(self.model).shapes), named(setup.model.shapes)
        parts = self.parts(setup.model)
        origin: dict[str, Any] = {
            "from": "run",
            "path": self.config.from_run,
            "checkpoint": self.step,
            **record_of(parts, there, wanted),
        }
        if merged := merged_in(parts):
            origin["feed_forwards"] = self._merged(merged)
        return Given(_Arrays(self, setup), self.first_step, origin).begin(setup)

    def _merged(self, layers: list[str]) -> dict[str, Any]:
        """What is said of feed-forwards that are made of experts."""
        said: dict[str, Any] = {"way": self.config.feed_forwards, "layers": layers}
        if self.config.feed_forwards in NEED_LOAD:
            said["load"] = "recorded" if self._recorded else "measured"
        if self.config.feed_forwards == "most_used":
            said["experts"] = [self._most_used(layer) for layer in layers]
        return said

    def _most_used(self, layer: str) -> int:
        kept = self.config.experts
        numbers = range(len(self.load[layer])) if kept is None else kept
        return max(numbers, key=lambda number: self.load[layer][number])


@dataclasses.dataclass(frozen=True)
class _Arrays:
    """The other run's arrays, as `switchx.training.start.Arrays`."""

    start: WarmStart
    setup: Setup

    def params(self, abstract: Params) -> Params:
        start, setup = self.start, self.setup
        model = Model.of(start.model)
        places = abstract_params(model, setup.mesh, setup.run.mesh.fully_sharded)
        places = jax.tree.map(_where_it_divides, places)
        there, _ = restore_params_to(places, start.model, start.model_dir, start.step)
        same = named(model.shapes) == named(setup.model.shapes)
        if same and not start.config.fresh and start.config.experts is None:
            return there

        parts = start.parts(setup.model)

        def make(there: Params, seed: jax.Array) -> Params:
            key = jax.random.key(seed)
            # Of the fresh parameters only those that are used are computed.
            fresh, noise = setup.model.init(key), jax.random.fold_in(key, 1)
            load = {layer: jnp.asarray(load_E) for layer, load_E in start.load.items()}
            axes = setup.model.axes
            return adapt(start.config, parts, there, fresh, axes, load, noise)

        shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
        with jax.set_mesh(setup.mesh):
            return jax.jit(make, out_shardings=shardings)(there, setup.run.trainer.seed)

    def opt_state(self, abstract: Any) -> Any | None:
        if not self.start.config.optimizer:
            return None
        run, start = self.setup.run, self.start
        own = dataclasses.replace(run.optimizer, frozen=start.frozen)
        there = Setup.of(dataclasses.replace(run, optimizer=own), self.setup.mesh).abstract
        places = {"step": there.step, "state": there.opt_state}
        state = restore_opt_state(places, start.model_dir, start.step, own.name)
        found = dict(jax.tree_util.tree_leaves_with_path(state))
        # What is frozen here has no place in this run's state.
        return jax.tree_util.tree_map_with_path(lambda path, _: found[path], abstract)


def _where_it_divides(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """The same, whole along a dimension that the mesh does not divide.

    What the other run has less of, such as experts, need not divide over this one's devices.
    """
    mesh, axes = leaf.sharding.mesh, leaf.sharding.spec
    parts = [math.prod(mesh.shape[axis] for axis in _axes(of)) for of in axes]
    kept = [
        of if size % n == 0 else None for of, n, size in zip(axes, parts, leaf.shape, strict=True)
    ]
    sharding = NamedSharding(mesh, PartitionSpec(*kept))
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _axes(of: Any) -> tuple[str, ...]:
    """The mesh's axes that a dimension is shared out over."""
    return of if isinstance(of, tuple) else (of,) if of else ()
