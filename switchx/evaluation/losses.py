"""Evaluation on fixed batches, and the entropy that a model must beat to have learned anything."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from switchx import hosts
from switchx.data.examples import examples_of
from switchx.sharding import make_mesh
from switchx.training.batches import HostBatch, put_batch
from switchx.training.checkpoints import restore_params
from switchx.training.checks import check_run
from switchx.training.config import RunConfig
from switchx.training.readings import Result, mean_of, read_metrics
from switchx.training.state import Setup
from switchx.training.step import compile_eval_step

MakeBatches = Callable[[], Iterable[HostBatch]]


class Evaluator:
    """Evaluates parameters on the same batches every time. Compiles at first use.

    Args:
      make_batches: those of the whole; they are kept.
      make_task_batches: those of each task by name; they are made anew each time, since the tasks
        of a mixture can be a hundred.
    """

    def __init__(
        self,
        setup: Setup,
        make_batches: MakeBatches,
        make_task_batches: Mapping[str, MakeBatches] | None = None,
    ):
        self._setup = setup
        self._make_batches = make_batches
        self._make_task_batches = make_task_batches or {}
        self._batches: list[HostBatch] | None = None
        self._step: Callable | None = None

    def __call__(self, params: Any) -> Result:
        """Returns scalars and per-layer arrays over the validation batches."""
        if self._batches is None:
            self._batches = list(self._make_batches())
        return self._over(self._batches, params)

    @property
    def examples(self) -> int:
        """How many the whole has: rows, or what is packed in them. None are counted twice."""
        return sum(1 for batch in self._batches or () for _ in examples_of(batch))

    def each_task(self, params: Any) -> Iterator[tuple[str, Result]]:
        """Yields the same of each task alone, as soon as it is there."""
        for task, make_batches in self._make_task_batches.items():
            yield task, self._over(list(make_batches()), params)

    def _over(self, batches: list[HostBatch], params: Any) -> Result:
        if self._step is None:
            self._step = compile_eval_step(self._setup)
            hosts.compiled_everywhere("evaluate")
        results = [
            jax.device_get(self._step(params, put_batch(batch, self._setup))) for batch in batches
        ]
        values, layers = read_metrics(mean_of(results))
        values["unigram_entropy"] = unigram_entropy(batches)
        with np.errstate(over="ignore"):
            values["perplexity"] = float(np.exp(values["loss"]))
        return values, layers


def unigram_entropy(batches: Iterable[HostBatch]) -> float:
    """Entropy in nats of the target tokens' own frequencies.

    No predictor that ignores the context can have a lower loss on these batches.
    """
    targets = [
        batch["decoder_target_tokens"][batch["decoder_loss_weights"] > 0] for batch in batches
    ]
    counts = np.bincount(np.concatenate(targets))
    share = counts[counts > 0] / counts.sum()
    return float(-np.sum(share * np.log(share)))


def evaluate(
    run: RunConfig,
    model_dir: str,
    make_batches: MakeBatches,
    step: int | None = None,
    make_task_batches: Mapping[str, MakeBatches] | None = None,
) -> dict[str, Any]:
    """Scalars of a checkpoint (the newest, or of `step`) on the validation batches.

    `examples` says how many these were. With tasks to evaluate alone, `tasks` holds the scalars of
    each by name.
    """
    mesh = make_mesh(run.mesh)
    check_run(run, mesh)
    setup = Setup.of(run, mesh)
    params, step = restore_params(setup.model, model_dir, mesh, step, run.mesh.fully_sharded)
    evaluator = Evaluator(setup, make_batches, make_task_batches)
    values, _ = evaluator(params)
    of_tasks = {task: values for task, (values, _) in evaluator.each_task(params)}
    found = {"step": step, "examples": evaluator.examples, **values}
    return found | ({"tasks": of_tasks} if of_tasks else {})
