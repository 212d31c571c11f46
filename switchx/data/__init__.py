"""What the model is fed: tasks, vocabularies and batches.

Importing this is free; TensorFlow, seqio and t5 are imported when a pipeline is built.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from switchx.data.config import Batch, DataConfig
from switchx.data.vocabularies import Vocabulary

if TYPE_CHECKING:
    from switchx.data.stream import TrainStream  # otherwise from __getattr__

__all__ = [
    "Batch",
    "DataConfig",
    "TrainStream",
    "Vocabulary",
    "eval_batches",
    "preflight",
    "task_eval_batches",
    "train_stream",
    "vocabulary",
]


def preflight(config: DataConfig) -> None:
    """Raises UserError with the one thing that is missing or wrong about a config's data."""
    from switchx.data.config import check_values
    from switchx.data.tensorflow_loader import load_tensorflow

    check_values(config)
    load_tensorflow()
    from switchx.data.preflight_checks import run_preflight

    run_preflight(config)


def vocabulary(config: DataConfig) -> Vocabulary:
    """Returns a config's vocabulary; for the tasks of this package without importing TensorFlow.

    Raises:
      UserError: it is not there or cannot be read.
    """
    from switchx.data.vocabulary_choice import open_vocabulary

    return open_vocabulary(config)


def train_stream(config: DataConfig, shards: Sequence[int] = (0,)) -> "TrainStream":
    """Returns the endless stream of these shards' rows; UserError where something is missing."""
    from switchx.data.tensorflow_loader import load_tensorflow

    load_tensorflow()
    from switchx.data.stream import TrainStream

    return TrainStream(config, shards)


def eval_batches(config: DataConfig, task: str | None = None) -> Iterator[Batch]:
    """Returns the evaluation batches, the same at every call; UserError as `train_stream`.

    Of one task alone where one is named, as `task_eval_batches` does.
    """
    from switchx.data.tensorflow_loader import load_tensorflow

    load_tensorflow()
    from switchx.data.stream import evaluation_batches

    return evaluation_batches(config, task)


def task_eval_batches(config: DataConfig) -> dict[str, Callable[[], Iterator[Batch]]]:
    """Returns what makes the evaluation batches of each task that is evaluated on its own.

    These are the tasks of a mixture that have a validation split, where the config says so.
    """
    if not config.eval_each_task:
        return {}
    from switchx.data.lookup import evaluated_tasks

    return {task: functools.partial(eval_batches, config, task) for task in evaluated_tasks(config)}


def __getattr__(name: str) -> Any:
    if name != "TrainStream":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from switchx.data.tensorflow_loader import load_tensorflow

    load_tensorflow()
    from switchx.data.stream import TrainStream

    return TrainStream
