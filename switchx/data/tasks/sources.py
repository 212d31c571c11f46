"""Checks that the data behind a task is there, before any of it is read."""

import functools
import os
from collections.abc import Sequence
from typing import Any

import seqio

from switchx.data.config import DataConfig
from switchx.data.tasks.json_lines import SETTINGS, JsonLinesSource
from switchx.data.tensorflow_loader import within_limit
from switchx.errors import UserError

SPLITS = ("train", "validation")


def check_sources(provider: Any, config: DataConfig, splits: Sequence[str] = SPLITS) -> None:
    """Raises UserError for the first task of a provider whose data or split is missing."""
    for task in seqio.get_subtasks(provider):
        if isinstance(task.source, JsonLinesSource):
            _check_json(task.source)
        elif isinstance(task.source, seqio.TfdsDataSource):
            _check_tfds(task, config)
        elif isinstance(task.source, seqio.FileDataSource):
            _check_files(task, config)
    for split in splits:
        if split not in provider.splits:
            raise UserError(
                f"MIXTURE_OR_TASK_NAME {config.mixture_or_task_name!r} has the splits "
                f"{', '.join(map(repr, sorted(provider.splits)))} and lacks {split!r}; "
                "name a task with 'train' and 'validation'."
            )


def _check_json(source: JsonLinesSource) -> None:
    for split, setting in SETTINGS.items():
        pattern = source.patterns.get(split)
        if not pattern:
            raise UserError(
                f"{setting} is not set; give the JSON-lines shards of the {split} split, as in "
                f"'/data/c4/en/c4-{split}.*-of-*.json.gz'."
            )
        if source.language and "{language}" not in source.globs[split]:
            raise UserError(
                f"{setting} is {pattern!r}, which names no '{{language}}'; put that where the "
                "files' names have the language, as in '/data/c4/multilingual/c4-{language}.*.gz'."
            )
        if not source.list_shards(split):
            raise UserError(f"{setting} {pattern!r} matches no file; give a glob that does.")


def _check_tfds(task: Any, config: DataConfig) -> None:
    source = task.source
    name = source.tfds_dataset.name
    if name is None:  # splits from several datasets, each with a folder of its own
        return
    data_dir = _tfds_folder(source)
    info = prepared_info(source)
    if info is None:
        given = "is not set and" if config.tfds_data_dir is None else f"{data_dir!r}"
        default = f" (the default is {data_dir!r})" if config.tfds_data_dir is None else ""
        raise UserError(
            f"TFDS_DATA_DIR {given} has no prepared dataset {name!r}{default}; give the folder "
            f"that holds '{name.replace(':', '/')}'."
        )
    for split in source.splits:
        try:
            source.num_input_examples(split)
        except (KeyError, ValueError) as error:
            raise UserError(
                f"TFDS_DATA_DIR {data_dir!r} has {name!r} without what the task {task.name!r} "
                f"takes for its split {split!r}; name a task whose splits were prepared."
            ) from error


def prepared_info(source: seqio.TfdsDataSource) -> Any:
    """The info of a source's dataset where it has been prepared, else None.

    Raises:
      UserError: there is no looking there.
    """
    folder = _tfds_folder(source)
    return within_limit(lambda: _prepared(source), folder, "TFDS_DATA_DIR")


def _tfds_folder(source: seqio.TfdsDataSource) -> str:
    import tensorflow_datasets as tfds

    return os.path.expanduser(str(source.tfds_dataset.data_dir or tfds.core.constants.DATA_DIR))


def _prepared(source: seqio.TfdsDataSource) -> Any:
    """The dataset's info where its files are there, else None; never downloads or prepares."""
    import tensorflow_datasets as tfds

    try:
        builder = source.tfds_dataset.builder
    except (tfds.core.registered.DatasetNotFoundError, AssertionError, ValueError):
        return None
    return builder.info if builder.is_prepared() and builder.info.splits else None


def _check_files(task: Any, config: DataConfig) -> None:
    setting = f"MIXTURE_OR_TASK_NAME {config.mixture_or_task_name!r}"
    for split in task.splits:
        shards = functools.partial(task.source.list_shards, split)
        if not within_limit(shards, task.name, setting):
            raise UserError(
                f"{setting} reads no file for the split {split!r}; see which files its source "
                "names."
            )
