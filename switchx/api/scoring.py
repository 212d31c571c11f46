"""What scores a run's tasks by their own metrics."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from switchx.data import DataConfig
from switchx.data.config import ENCODER_ALONE
from switchx.errors import UserError
from switchx.settings import Settings

if TYPE_CHECKING:
    from switchx.data import Batch
    from switchx.data.grading import GradedTask
    from switchx.evaluation import Scorer
    from switchx.training.state import Setup

_AVERAGES = ("average", "glue_average", "super_glue_average")


def measures(settings: Settings, model_dir: str | None) -> dict[str, Any]:
    """What `switchx.evaluation.evaluate_params` takes, of a run's validation split.

    Args:
      model_dir: where answers are written; None writes none.

    Raises:
      UserError: the split is not there.
    """
    from switchx import data

    data.preflight(settings.data, ["validation"])
    whole = dataclasses.replace(settings.data, eval_batches=None)
    return {
        "make_batches": functools.partial(data.eval_batches, whole),
        "make_task_batches": data.task_eval_batches(whole),
        "limit": settings.data.eval_batches,
        "total": data.num_examples(whole),
        "make_scorer": functools.partial(scorer, settings, model_dir),
    }


def scorer(
    settings: Settings, model_dir: str | None, setup: "Setup", say: Callable[[str], None]
) -> "Scorer":
    """What answers and grades the tasks of a run that have metrics.

    Args:
      model_dir: below which the answers are written; None writes none.
      say: is given a line on each thing that has no score.

    Raises:
      UserError: their task or vocabulary cannot be found, or a setting of sampling is wrong.
    """
    from switchx import data, evaluation

    config, scores = settings.data, settings.scores
    decoding = scores.decoding(config.feature_lengths["targets"], config.rows_per_eval_batch)
    tasks, answered = _graded(settings, scores.examples)
    ungraded = answered | data.ungraded_tasks(config) if tasks or answered else {}
    eos_id = data.vocabulary(config).eos_id if tasks else 1
    return evaluation.Scorer(setup, tasks, decoding, eos_id, ungraded, model_dir, say)


def _graded(
    settings: Settings, most: int | None = None
) -> "tuple[list[GradedTask], dict[str, str]]":
    """The tasks that a run's model can be scored on, and why others are left out, by name."""
    from switchx import data
    from switchx.data.grades import PREDICT

    tasks = data.graded_tasks(settings.data, most)
    if not settings.run.model.encoder_alone:
        return tasks, {}
    why = f"(its metrics need answers, which {ENCODER_ALONE} does not write)"
    answered = {task.name: why for task in tasks if PREDICT in task.needs}
    return [task for task in tasks if task.name not in answered], answered


def check_scores(settings: Settings) -> None:
    """Raises UserError where BEST_SCORE can be none of the scores that a run will have."""
    best = settings.run.trainer.best_score
    if not settings.scores.during_training:
        graded = []
    else:
        graded = [task.name for task in _graded(settings)[0]]
    if best == "loss" or (graded and best in _AVERAGES):
        return
    if best.rpartition("/")[0] in graded and not best.endswith("/"):
        return
    if not settings.scores.during_training:
        why = "needs EVAL_SCORES=True"
    elif not graded:
        name = settings.data.mixture_or_task_name
        why = f"needs a task with metrics, and MIXTURE_OR_TASK_NAME={name!r} has none"
    else:
        why = f"is no score of {', '.join(graded)}"
    raise UserError(
        f"BEST_SCORE={best!r} {why}: give 'loss', 'average', or a task's name and its metric's, "
        "as in 'squad_v010_allanswers/f1'."
    )


def task_batches(
    settings: Settings, config: DataConfig
) -> "dict[str, Callable[[], Iterator[Batch]]]":
    """What makes the batches of the tasks whose loss is measured apart while a run trains.

    Those of EVAL_EACH_TASK, and those of a mixture that are scored.
    """
    from switchx import data

    found = data.task_eval_batches(config)
    tasks = _graded(settings)[0] if settings.scores.during_training else []
    for name in (task.name for task in tasks):  # in the same order on all hosts
        if name != config.mixture_or_task_name and name not in found:
            found[name] = functools.partial(data.eval_batches, config, name)
    return found
