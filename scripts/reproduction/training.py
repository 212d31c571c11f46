"""One run, and the speed of many, with the package's own steps."""

import collections
import contextlib
import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from reproduction.plan import BATCH, EVAL_STEPS, STEPS, VARIANTS, Variant, run_config
from switchx.data import Batch
from switchx.evaluation import Evaluator
from switchx.model.noise import Noise
from switchx.model.router import Router
from switchx.sharding import make_mesh
from switchx.training.batches import put_batch
from switchx.training.state import Setup, TrainState
from switchx.training.step import compile_train_step


def _router_in_bfloat16(self: Router, x_GSD: jax.Array, noise: Noise) -> jax.Array:
    """Router.__call__ without its float32: input, jitter, product and so the softmax after it."""
    x_GSD = x_GSD.astype(jnp.bfloat16)
    factor_GSD = self.exploration.disturb(jnp.ones(x_GSD.shape, jnp.float32), noise)
    x_GSD = x_GSD * factor_GSD.astype(jnp.bfloat16)
    return jnp.einsum("gsd,de->gse", x_GSD, self.kernel_DE[...].astype(jnp.bfloat16))


def router_of(variant: Variant) -> contextlib.AbstractContextManager:
    """The package has no such router, on purpose: it is put in from outside, while tracing."""
    if variant.bfloat16_router:
        return mock.patch.object(Router, "__call__", _router_in_bfloat16)
    return contextlib.nullcontext()


class Trainer:
    """Compiled steps of one variant, shared by its seeds.

    The seed decides the initialization. Batches, their order, and the keys of jitter and
    sampling are the same in every run.
    """

    def __init__(self, variant: Variant, held_out: list[Batch]):
        self.variant = variant
        self.setup = _setup(variant, 0)
        began = time.perf_counter()
        with router_of(variant):
            self.step: Callable = compile_train_step(self.setup)
        self.evaluate = Evaluator(self.setup, lambda: held_out)
        self.compile_seconds = time.perf_counter() - began

    def init(self, seed: int) -> TrainState:
        return _setup(self.variant, seed).init()

    def run(self, seed: int, batches: list[Batch]) -> dict[str, Any]:
        """Trains once; the losses are of the held-out batches, nats per token."""
        state, seconds, losses, values = self.init(seed), 0.0, [], {}
        last_steps: collections.deque = collections.deque(maxlen=100)
        for first, last in itertools.pairwise((0, *EVAL_STEPS)):
            began = time.perf_counter()
            for batch in batches[first:last]:
                state, metrics = self.step(state, put_batch(batch, self.setup))
                last_steps.append(metrics["stats"])
            jax.block_until_ready(state)
            seconds += time.perf_counter() - began
            with router_of(self.variant):  # the first evaluation compiles
                values, arrays = self.evaluate(state.params)
            losses.append([last, _finite(values["loss"])])
        load = arrays.get("load")
        return {
            "seed": seed,
            "steps": STEPS,
            "loss": losses[-1][1],
            "losses": losses,
            "unigram_entropy": values["unigram_entropy"],
            "dropped_fraction": values.get("mean_dropped_fraction"),
            "least_load": None if load is None else float(np.min(load)),
            **_balance(load, last_steps),
            "parameters": self.setup.model.num_params,
            "examples_per_second": STEPS * BATCH / seconds,
            "train_seconds": seconds,
            "compile_seconds": self.compile_seconds,
            "bfloat16_router": self.variant.bfloat16_router,
            "config": dataclasses.asdict(self.setup.run),
        }


def _balance(load_NE: Any, last_steps: Iterable[Any]) -> dict[str, float]:
    """How equally experts were loaded; {} of a dense model.

    Loads are in fair shares: on the held-out batches the largest of any expert, and how many of
    them got no token; in the last steps of training means over steps and layers, of the expert
    with the most, and of the tokens that found their expert full.
    """
    if load_NE is None:
        return {}
    steps = jax.device_get(list(last_steps))
    E = load_NE.shape[-1]
    return {
        "largest_load": float(np.max(load_NE)) * E,
        "dead": int(np.sum(np.asarray(load_NE) == 0)),
        "train_largest": float(np.mean([s.load_E.max(axis=-1) for s in steps])) * E,
        "train_dropped": float(np.mean([s.dropped_fraction for s in steps])),
    }


def _setup(variant: Variant, seed: int) -> Setup:
    run = run_config(variant, seed)
    return Setup.of(run, make_mesh(run.mesh))


def _finite(loss: float) -> float | None:
    """JSON has no NaN: null is a run that diverged."""
    return loss if np.isfinite(loss) else None


def speeds(batch: Batch, rounds: int, steps: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Examples per second of every variant, from short turns taken one after the other.

    Whatever else the machine does then falls on all variants alike.
    """
    trainers = {}
    for name, variant in VARIANTS.items():
        trainers[name] = Trainer(variant, [batch])
        print(f"compiled {name}", flush=True)
    states = {name: trainer.init(0) for name, trainer in trainers.items()}
    rates: dict[str, list[float]] = {name: [] for name in trainers}
    for number in range(rounds + 1):
        for name, trainer in trainers.items():
            placed = put_batch(batch, trainer.setup)
            began = time.perf_counter()
            for _ in range(steps):
                states[name], _ = trainer.step(states[name], placed)
            jax.block_until_ready(states[name])
            if number:  # the first round warms up
                rates[name].append(steps * BATCH / (time.perf_counter() - began))
    for name, values in rates.items():
        yield name, {"examples_per_second": statistics.median(values), "rounds": values}
