"""What a person reads of a step's or an evaluation's metrics, on the host.

Metrics are {"sums", "penalty", "stats"} of an objective's `Outcome`; a training step adds
"gradient_norm" and "learning_rate".
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

Result = tuple[dict[str, float], dict[str, Any]]  # scalars and per-layer arrays
LOSS = "loss"  # what decides on the best checkpoint unless a score does


@dataclasses.dataclass(frozen=True)
class Scores:
    """What the tasks' own metrics say of a model.

    Attributes:
      tasks: of each task the values of its metrics by name.
      averages: over the tasks, by name.
    """

    tasks: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    averages: dict[str, float] = dataclasses.field(default_factory=dict)

    def by_name(self) -> dict[str, float]:
        """All that are finite, under the names of BEST_SCORE: "task/metric", or an average's."""
        every = {f"{task}/{name}": x for task, of in self.tasks.items() for name, x in of.items()}
        return {name: x for name, x in (every | self.averages).items() if math.isfinite(x)}


def as_fields(scores: dict[str, float]) -> dict[str, float]:
    """Scores as they stand in a row of metrics, beside the loss and its like."""
    return {f"score/{name}": value for name, value in scores.items()}


def read_metrics(metrics: dict) -> Result:
    """Scalars, and arrays of one row per switch layer: [layers], the load per expert [layers, E].

    "loss" is in nats per target token. Each sum that only some objectives have is a scalar too.
    """
    metrics = jax.device_get(metrics)
    sums = {name: float(value) for name, value in metrics["sums"].items()}
    weight = max(sums.pop("weight"), 1.0)
    means = {name: value / weight for name, value in sums.items()}
    loss = means.pop("cross_entropy")
    values = {
        "loss": loss,
        "negative_log_perplexity": -loss,
        "accuracy": means.pop("correct"),
        "objective": means.pop("objective") + float(metrics["penalty"]),
        **means,
    }
    values |= {k: float(metrics[k]) for k in ("learning_rate", "gradient_norm") if k in metrics}
    stats = metrics["stats"]
    if stats is None:
        return values, {}
    layers = {
        "balance_loss": stats.balance_loss,
        "router_z_loss": stats.z_loss,
        "dropped_fraction": stats.dropped_fraction,
        "router_entropy": stats.entropy,
        "gate_mean": stats.gate_mean,
        "load": stats.load_E,
    }
    for name in ("balance_loss", "router_z_loss", "dropped_fraction", "router_entropy"):
        values[f"mean_{name}"] = float(np.mean(layers[name]))
    return values, layers


def loss_of(metrics: dict) -> tuple[float, float, float]:
    """Loss in nats per token, sum of the objective and gradient norm: what a bad step shows."""
    sums, norm = jax.device_get((metrics["sums"], metrics["gradient_norm"]))
    loss = float(sums["cross_entropy"]) / max(float(sums["weight"]), 1.0)
    return loss, float(sums["objective"]), float(norm)


def mean_of(results: Sequence[dict], weights: Sequence[float]) -> dict:
    """Metrics of several batches as one: sums added, everything else averaged by weight.

    In float64: float32 cannot count the tokens of a large split.
    """
    sums = [result["sums"] for result in results]
    rest = [{**result, "sums": {}} for result in results]
    added = jax.tree.map(lambda *x: np.sum(np.asarray(x, np.float64)), *sums)
    average = lambda *x: np.average(np.asarray(x, np.float64), axis=0, weights=weights)  # noqa: E731
    return {**jax.tree.map(average, *rest), "sums": added}
