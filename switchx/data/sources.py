"""Checks that the data behind a task is there, before any of it is read."""

import functools
import os
from collections.abc import Sequence
from typing import Any

import seqio

from switchx.data import files
from switchx.data.config import DataConfig
from switchx.data.json_lines import JsonLinesSource
from switchx.errors import UserError

SPLITS = ("train", "validation")
_JSON_SETTINGS = {"train": "C4_JSON_TRAIN", "validation": "C4_JSON_VALIDATION"}


def check_sources(provider: Any, config: DataConfig, splits: Sequence[str] = SPLITS) -> None:
    """Raises UserError for the first task of a provider whose data or split is missing."""
    for task in seqio.get_subtasks(provider):
        if isinstance(task.source, JsonLinesSource):
            _check_json(task.source)
        elif isinstance(task.source, seqio.TfdsDataSource):
            _check_tfds(task.source, config)
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
    for split, setting in _JSON_SETTINGS.items():
        pattern = source.patterns.get(split)
        if not pattern:
            raise UserError(
                f"{setting} is not set; give the JSON-lines shards of the {split} split, as in "
                f"'/data/c4/en/c4-{split}.*-of-*.json.gz'."
            )
        if not files.list_matches(pattern, setting):
            raise UserError(f"{setting} {pattern!r} matches no file; give a glob that does.")


def _check_tfds(source: seqio.TfdsDataSource, config: DataConfig) -> None:
    name = source.tfds_dataset.name
    if name is None:  # splits from several datasets, each with a folder of its own
        return
    data_dir = _tfds_folder(source)
    info = files.within_limit(lambda: _prepared(source), data_dir, "TFDS_DATA_DIR")
    if info is None:
        given = "is not set and" if config.tfds_data_dir is None else f"{data_dir!r}"
        default = f" (the default is {data_dir!r})" if config.tfds_data_dir is None else ""
        raise UserError(
            f"TFDS_DATA_DIR {given} has no prepared dataset {name!r}{default}; give the folder "
            f"that holds '{name.replace(':', '/')}'."
        )


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
        if not files.within_limit(shards, task.name, setting):
            raise UserError(
                f"{setting} reads no file for the split {split!r}; see which files its source "
                "names."
            )
