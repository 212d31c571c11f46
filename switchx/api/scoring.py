"""What scores a run's tasks by their own metrics."""

from typing import TYPE_CHECKING

from switchx.settings import Settings

if TYPE_CHECKING:
    from switchx.evaluation import Scorer
    from switchx.training.state import Setup


def scorer(settings: Settings, setup: "Setup") -> "Scorer":
    """What answers and grades the tasks of a run that have metrics.

    Raises:
      UserError: their task or vocabulary cannot be found, or a setting of sampling is wrong.
    """
    from switchx import data, evaluation

    config, scores = settings.data, settings.scores
    decoding = scores.decoding(config.feature_lengths["targets"], config.rows_per_eval_batch)
    tasks = data.graded_tasks(config, scores.examples)
    ungraded = data.ungraded_tasks(config) if tasks else {}
    eos_id = data.vocabulary(config).eos_id if tasks else 1
    return evaluation.Scorer(setup, tasks, decoding, eos_id, ungraded)
