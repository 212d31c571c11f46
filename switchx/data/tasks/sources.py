"""Checks that the data behind a task is there, before any of it is read."""

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import seqio

from switchx import storage
from switchx.data.config import DataConfig
from switchx.data.tasks import given_files, names, published, task_files, text_files
from switchx.data.tasks.table_source import TableSource
from switchx.data.tasks.text_source import TextSource
from switchx.data.tensorflow_loader import within_limit
from switchx.errors import UserError


def check_sources(provider: Any, config: DataConfig, splits: Sequence[str]) -> None:
    """Raises UserError for the first task of a provider whose data or split is missing."""
    for task in seqio.get_subtasks(provider):
        if isinstance(task.source, TextSource):
            for split in filter(task.source.given.get, splits):
                text_files.check_there(task.source.given[split])
        elif isinstance(task.source, TableSource):
            for split in filter(task.source.patterns.get, splits):
                task.source.check(split)
        elif isinstance(task.source, seqio.TfdsDataSource):
            _check_tfds(task, config, splits)
        elif isinstance(task.source, seqio.FileDataSource):
            _check_files(task, config, splits)
    for split in splits:
        if split not in provider.splits:
            raise UserError(
                f"MIXTURE_OR_TASK_NAME={config.mixture_or_task_name!r} has the splits "
                f"{', '.join(map(repr, sorted(provider.splits)))} and lacks {split!r}: "
                "name a task that has it."
            )


def _check_tfds(task: Any, config: DataConfig, splits: Sequence[str]) -> None:
    source = task.source
    name = source.tfds_dataset.name
    if name is None:  # splits from several datasets, each with a folder of its own
        return
    if source._splits and not set(source._splits) & set(splits):  # as those with a test split alone
        return
    data_dir = _tfds_folder(source)
    info = prepared_info(source)
    if info is None:
        default = "" if config.tfds_data_dir else ", the default,"
        raise UserError(
            f"TFDS_DATA_DIR={data_dir!r}{default} has no prepared dataset {name!r}: give the "
            f"folder that holds '{name.replace(':', '/')}'{_or_files(source)}."
        )
    for split in set(splits) & set(source.splits):
        try:
            source.num_input_examples(split)
        except (KeyError, ValueError) as error:
            raise UserError(
                f"TFDS_DATA_DIR={data_dir!r} has {name!r} without what the task {task.name!r} "
                f"takes for its split {split!r}: name a task whose splits were prepared."
            ) from error


def _or_files(source: seqio.TfdsDataSource) -> str:
    """Where a dataset comes from, for the end of a sentence; '' where that is not known."""
    dataset, of = task_files.dataset_of(source)
    url = published.url(dataset, of)
    if url is None:
        return ""
    made = f"`tfds build {source.tfds_dataset.name.partition(':')[0]}` makes it"
    if dataset == "glue" and source.tfds_dataset.name.endswith(":1.0.0"):
        made = f"no TFDS of today makes it, but 2.0.0: 'glue_{of}_v200' reads that"
    return f" ({made}), or the published files in TASK_FILES, such as {url!r}"


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


def _check_files(task: Any, config: DataConfig, splits: Sequence[str]) -> None:
    setting = f"MIXTURE_OR_TASK_NAME={config.mixture_or_task_name!r}"
    for split in set(splits) & set(task.splits):
        shards = functools.partial(task.source.list_shards, split)
        if not within_limit(shards, task.name, setting):
            raise UserError(
                f"{setting} reads no file for the split {split!r}: see which files its source "
                "names."
            )


def facts(task: Any, splits: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What a task's data is, for each split: files, each with its bytes and time in nanoseconds.

    Of a remote file it is its hash in place of a time, where its store says one. What is not known
    is None. Of TFDS it is the dataset's folder with
    its number of examples; of a function nothing is known.
    """
    source, found = task.source, {}
    for split in splits:
        if isinstance(source, seqio.TfdsDataSource):
            name = source.tfds_dataset.name or task.name
            found[split] = {f"{_tfds_folder(source)}/{name}": source.num_input_examples(split)}
        elif isinstance(source, TextSource | TableSource):
            setting, glob = _given(source, split)
            hashes = storage.list_hashes(glob, setting)
            found[split] = dict(_file(*f, hashes) for f in source.sizes(split).items())
        elif task.name in names.EMBEDDED:  # its folder is named after all that decides it
            paths = map(Path, source.list_shards(split))
            found[split] = {f"{path.parent.name}/{path.name}": None for path in paths}
        elif isinstance(source, seqio.FileDataSource):
            found[split] = dict(_file(path, None, {}) for path in source.list_shards(split))
    return found


def settings(task: Any, config: DataConfig) -> dict[str, Any]:
    """The settings that say what is taken of a task's files."""
    if isinstance(task.source, TextSource):
        return {"TEXT_FIELD": task.source.field}
    if isinstance(task.source, TableSource):
        return {"TASK_FIELDS": dict(config.task_fields or {})}
    return {}


def _given(source: Any, split: str) -> tuple[str, str]:
    """The setting that named the files of a split, and its glob."""
    if isinstance(source, TextSource):
        return source.given[split].setting, str(source.given[split].glob)
    return given_files.setting_of(split), source.patterns[split]


def _file(path: str, size: int | None, hashes: Mapping[str, str]) -> tuple[str, list[Any]]:
    if storage.is_remote(path) or not os.path.exists(path):
        return path, [size, hashes.get(path)]
    stat = os.stat(path)
    return os.path.abspath(path), [stat.st_size, stat.st_mtime_ns]
