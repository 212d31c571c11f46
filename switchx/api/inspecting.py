"""The texts that experts are looked at with: files, tasks, or what a run is evaluated on."""

import dataclasses
import itertools
import os
from collections.abc import Sequence

from switchx import data, evaluation
from switchx.settings import Settings
from switchx.training.checkpoints.refusals import check_model

_MOST_TASKS = 24  # of a mixture: more would have a few rows each
_TEXT, _TASK = "--text", "--task"


def sources(
    config: Settings, texts: Sequence[str], tasks: Sequence[str]
) -> list[evaluation.Source]:
    """One for each text and each task; without either, the run's own.

    Raises:
      UserError: one cannot be read, or is of another vocabulary than the model.
    """
    found = [_of_text(config.data, path, texts) for path in texts]
    found += [_of_task(config, name) for name in tasks]
    return found or _of_run(config.data)


def _of_text(config: data.DataConfig, path: str, paths: Sequence[str]) -> evaluation.Source:
    text = data.read_text(path, _TEXT)
    same = [other for other in paths if os.path.basename(other.rstrip("/")) == text.name]
    said = f"all of its {text.bytes_in_file:,} bytes"
    if len(text.parts) > 1:
        said = (
            f"{text.bytes_read:,} of its {text.bytes_in_file:,} bytes, in {len(text.parts)} parts "
            "spread evenly over it"
        )
    batches = data.text_batches(text, config)
    return evaluation.Source(path if len(same) > 1 else text.name, batches, said, False)


def _of_task(config: Settings, name: str) -> evaluation.Source:
    of_task = config.data.of_task(name)
    data.preflight(of_task, ["validation"])
    check_model(config.run.model, config.model_dir, data.vocabulary_digest(of_task))
    return evaluation.Source(name, data.eval_batches(of_task), "its validation split")


def _of_run(config: data.DataConfig) -> list[evaluation.Source]:
    data.preflight(config, ["validation"])
    every = data.task_eval_batches(dataclasses.replace(config, eval_each_task=True))
    if not every:
        name = config.mixture_or_task_name
        return [evaluation.Source(name, data.eval_batches(config), "its validation split")]
    return [
        evaluation.Source(name, make(), "its validation split")
        for name, make in itertools.islice(every.items(), _MOST_TASKS)
    ]
