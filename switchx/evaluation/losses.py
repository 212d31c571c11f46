"""Evaluation on fixed batches, and the entropy that a model must beat to have learned anything."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from switchx import hosts
from switchx.data.batches import targets_of
from switchx.data.examples import examples_of
from switchx.evaluation.averages import averages
from switchx.evaluation.scores import Scorer
from switchx.model import Params
from switchx.sharding import make_mesh
from switchx.terminal import Progress
from switchx.training.batches import HostBatch, put_batch
from switchx.training.checkpoints import restore_params
from switchx.training.checks import check_run
from switchx.training.config import RunConfig
from switchx.training.readings import Result, Scores, mean_of, read_metrics
from switchx.training.state import Setup
from switchx.training.step import compile_eval_step

MakeBatches = Callable[[], Iterable[HostBatch]]
Say = Callable[[str], None]
MakeScorer = Callable[[Setup, Say], Scorer]


@dataclasses.dataclass(frozen=True)
class Share:
    """How much of the validation split an evaluation read, each example once.

    Attributes:
      examples: rows, or what is packed in them.
      whole: whether those are all.
      total: how many the split has; None where only reading all would tell.
    """

    examples: int
    whole: bool
    total: int | None = None

    def __str__(self) -> str:
        if self.whole:
            return f"all {self.examples:,} examples of the validation split"
        if self.total is not None:
            return f"{self.examples:,} of {self.total:,} examples of the validation split"
        return f"the first {self.examples:,} examples of the validation split, which has more"

    def values(self) -> dict[str, Any]:
        """For whoever reads them by name."""
        total = self.examples if self.whole and self.total is None else self.total
        return {
            "examples": self.examples,
            "examples_in_split": total,
            "whole_split": self.whole,
        }


class Evaluator:
    """Evaluates parameters on the same batches every time. Compiles at first use.

    Args:
      make_batches: all those of the validation split.
      make_task_batches: those of each task by name. They are made anew each time, since the tasks
        of a mixture can be a hundred.
      limit: so many batches of each are read; None reads all. They are kept where there is one.
      total: examples of the split, where that is known.
      read: is called after each batch.
      make_scorer: makes what lets the model answer tasks, when it is first asked; None scores none.

    Attributes:
      share: what the last call read.
      task_shares: what the last call of `each_task` read, by task.
    """

    def __init__(
        self,
        setup: Setup,
        make_batches: MakeBatches,
        make_task_batches: Mapping[str, MakeBatches] | None = None,
        limit: int | None = None,
        total: int | None = None,
        read: Callable[[], None] = lambda: None,
        make_scorer: MakeScorer | None = None,
    ):
        self._setup, self._make_scorer = setup, make_scorer
        self._scorer: Scorer | None = None
        self._make_batches = make_batches
        self._make_task_batches = make_task_batches or {}
        self._limit, self._total, self._read = limit, total, read
        self._kept: tuple[list[HostBatch], bool] | None = None
        self._step: Callable | None = None
        self.share = Share(0, False)
        self.task_shares: dict[str, Share] = {}

    def __call__(self, params: Any) -> Result:
        """Returns scalars and per-layer arrays over the validation batches."""
        if self._kept is None:
            batches = _Batches(self._make_batches(), self._limit)
            if self._limit is None:
                result, examples = self._over(batches, params)
                self.share = Share(examples, batches.whole, self._total)
                return result
            self._kept = list(batches), batches.whole
        result, examples = self._over(self._kept[0], params)
        self.share = Share(examples, self._kept[1], self._total)
        return result

    def each_task(self, params: Any) -> Iterator[tuple[str, Result]]:
        """Yields the same of each task alone, as soon as it is there."""
        for task, make_batches in self._make_task_batches.items():
            batches = _Batches(make_batches(), self._limit)
            result, examples = self._over(batches, params)
            self.task_shares[task] = Share(examples, batches.whole)
            yield task, result

    def scores(
        self, params: Any, step: int, say: Say, begin: Callable[[], None] = lambda: None
    ) -> Scores:
        """What the tasks' own metrics say of the parameters of a step.

        Args:
          say: is given a line on each thing that has no score.
          begin: is called before each task.
        """
        if self._make_scorer is None:
            return Scores()
        begin()
        if self._scorer is None:
            self._scorer = self._make_scorer(self._setup, say)
        found = {}
        for task, values in self._scorer(params, step):
            found[task] = values
            begin()
        return Scores(found, averages(found))

    def _over(self, batches: Iterable[HostBatch], params: Any) -> tuple[Result, int]:
        """The result over batches, and how many examples they hold."""
        if self._step is None:
            self._step = compile_eval_step(self._setup)
            hosts.compiled_everywhere("evaluate")
        results, rows, examples, counts = [], [], 0, Counts()
        for batch in batches:
            results.append(jax.device_get(self._step(params, put_batch(batch, self._setup))))
            rows.append(int((targets_of(batch)[1] > 0).any(axis=1).sum()))
            examples += sum(1 for _ in examples_of(batch))
            counts.add(batch)
            self._read()
        # The last batch may be filled up with empty rows: what is no sum counts by the others.
        values, layers = read_metrics(mean_of(results, rows if any(rows) else [1] * len(rows)))
        values["unigram_entropy"] = counts.entropy()
        with np.errstate(over="ignore"):
            values["perplexity"] = float(np.exp(values["loss"]))
        return (values, layers), examples


class _Batches:
    """The first so many of some batches, and when they were taken whether these were all."""

    def __init__(self, batches: Iterable[HostBatch], limit: int | None):
        self._batches, self._limit, self.whole = iter(batches), limit, False

    def __iter__(self) -> Iterator[HostBatch]:
        yield from itertools.islice(self._batches, self._limit)
        self.whole = next(self._batches, None) is None


class Counts:
    """How often each token is a target."""

    def __init__(self) -> None:
        self._count_V = np.zeros(0, np.int64)

    def add(self, batch: HostBatch) -> None:
        """Counts those of a batch."""
        target_BL, weight_BL = targets_of(batch)
        targets = target_BL[weight_BL > 0]
        count_V = np.bincount(targets, minlength=len(self._count_V))
        count_V[: len(self._count_V)] += self._count_V
        self._count_V = count_V

    def entropy(self) -> float:
        """In nats, of the tokens' frequencies.

        No predictor that ignores the context can have a lower loss on these batches.
        """
        share = self._count_V[self._count_V > 0] / self._count_V.sum()
        return float(-np.sum(share * np.log(share)))


def opened(run: RunConfig, model_dir: str, step: int | None) -> tuple[Setup, Params, int]:
    """A run's setup, with the parameters of a checkpoint (None: the newest) and its step."""
    mesh = make_mesh(run.mesh)
    check_run(run, mesh)
    setup = Setup.of(run, mesh)
    split = run.mesh.fully_sharded
    return setup, *restore_params(setup.model, model_dir, mesh, step, split)


def evaluate(
    run: RunConfig,
    model_dir: str,
    make_batches: MakeBatches,
    step: int | None = None,
    **how: Any,
) -> dict[str, Any]:
    """Scalars of a checkpoint (the newest, or of `step`) on the validation batches.

    Args:
      how: as of `evaluate_params`, which says what is returned.
    """
    return evaluate_params(*opened(run, model_dir, step), make_batches, **how)


def evaluate_params(
    setup: Setup,
    params: Params,
    step: int,
    make_batches: MakeBatches,
    make_task_batches: Mapping[str, MakeBatches] | None = None,
    limit: int | None = None,
    total: int | None = None,
    make_scorer: MakeScorer | None = None,
) -> dict[str, Any]:
    """Scalars of parameters of a step on the validation batches.

    "examples", "examples_in_split" and "whole_split" say how many these were. With tasks to
    evaluate alone, "tasks" holds the same of each by name. With metrics of the tasks' own,
    "scores" holds what they say of each task, "averages" those over the tasks, and "said" lines on
    what has no score. Shows how many batches were read.

    Args:
      limit, total: as of `Evaluator`.
      make_scorer: makes what scores the tasks.
    """
    batches = limit and limit * (1 + len(make_task_batches or {}))
    with Progress(batches, "batches", shown=hosts.is_first()) as progress:
        evaluator = Evaluator(
            setup, make_batches, make_task_batches, limit, total, progress.advance, make_scorer
        )
        values, _ = evaluator(params)
        of_tasks = {
            task: evaluator.task_shares[task].values() | values
            for task, (values, _) in evaluator.each_task(params)
        }
    said: list[str] = []
    scores = evaluator.scores(params, step, said.append)
    found: dict[str, Any] = {"step": step, **evaluator.share.values(), **values}
    more = {"tasks": of_tasks, "scores": scores.tasks, "averages": scores.averages, "said": said}
    return found | {name: of for name, of in more.items() if of}
