"""What scores a run's tasks by their own metrics."""

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from switchx.data import DataConfig
from switchx.errors import UserError
from switchx.settings import Settings

if TYPE_CHECKING:
    from switchx.data import Batch
    from switchx.evaluation import Scorer
    from switchx.training.state import Setup

_AVERAGES = ("average", "glue_average", "super_glue_average")


def scorer(settings: Settings, setup: "Setup", say: Callable[[str], None]) -> "Scorer":
    """What answers and grades the tasks of a run that have metrics.

    Args:
      say: is given a line on each thing that has no score.

    Raises:
      UserError: their task or vocabulary cannot be found, or a setting of sampling is wrong.
    """
    from switchx import data, evaluation

    config, scores = settings.data, settings.scores
    decoding = scores.decoding(config.feature_lengths["targets"], config.rows_per_eval_batch)
    tasks = data.graded_tasks(config, scores.examples)
    ungraded = data.ungraded_tasks(config) if tasks else {}
    eos_id = data.vocabulary(config).eos_id if tasks else 1
    return evaluation.Scorer(setup, tasks, decoding, eos_id, ungraded, settings.model_dir, say)


def check_scores(settings: Settings) -> None:
    """Raises UserError where BEST_SCORE can be none of the scores that a run will have."""
    from switchx import data

    best = settings.run.trainer.best_score
    if not settings.scores.during_training:
        graded = []
    else:
        graded = [task.name for task in data.graded_tasks(settings.data)]
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
    tasks = data.graded_tasks(config) if settings.scores.during_training else []
    for name in (task.name for task in tasks):  # in the same order on all hosts
        if name != config.mixture_or_task_name and name not in found:
            found[name] = functools.partial(data.eval_batches, config, name)
    return found
