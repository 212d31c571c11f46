"""TASK_FILES and TASK_FIELDS: a task's examples from files, in the place of its TFDS dataset.

What the settings alone tell is checked here too, without TensorFlow.
"""

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from switchx import storage
from switchx.data.config import DataConfig
from switchx.data.files import check_formats
from switchx.data.tasks import names, published
from switchx.data.tasks.given_files import check_there, setting_of
from switchx.errors import UserError
from switchx.terminal import remark

CONFIG = "{config}"


def pattern(config: DataConfig, split: str, of: str) -> str:
    """The glob of a split, with the name of a dataset's configuration in the place of {config}."""
    return storage.expanded((config.task_files or {})[split].replace(CONFIG, of))


def check_given(config: DataConfig, splits: Sequence[str]) -> dict[str, list[str]]:
    """The files of each split, by the setting that names them; of a known task its globs.

    Raises:
      UserError: these settings do not go together, or name no files for a split.
    """
    is_own = config.mixture_or_task_name == names.TASK_FILES
    if config.task_metrics and not is_own:
        raise UserError(
            f"TASK_METRICS={config.task_metrics!r} is for "
            f"MIXTURE_OR_TASK_NAME={names.TASK_FILES!r}, and "
            f"{config.mixture_or_task_name!r} has its own metrics: leave it unset."
        )
    if isinstance(config.task_metrics, str):
        raise UserError(
            f"TASK_METRICS={config.task_metrics!r} must be a tuple of names: give "
            f"({config.task_metrics!r},)."
        )
    for metric in config.task_metrics:
        if metric not in names.TASK_METRICS:
            raise UserError(
                f"TASK_METRICS={tuple(config.task_metrics)!r} names {metric!r}: name some of "
                f"{', '.join(map(repr, names.TASK_METRICS))}."
            )
    if config.task_files is None:
        if is_own or config.task_fields:
            given = "MIXTURE_OR_TASK_NAME" if is_own else "TASK_FIELDS"
            value = names.TASK_FILES if is_own else dict(config.task_fields or {})
            raise UserError(
                f"{given}={value!r} reads files, and TASK_FILES is not set: give their globs, as "
                "in {'train': '/data/train-*.parquet', 'validation': '/data/dev.jsonl'}."
            )
        return {}
    there = {}
    for split in splits:
        if split not in config.task_files:
            raise UserError(
                f"TASK_FILES={dict(config.task_files)!r} names no files for {split!r}: give their "
                f"glob, as in {{{split!r}: '/data/squad/{split}-*.parquet'}}."
            )
        there[setting_of(split)] = [config.task_files[split]]
        if is_own:
            there[setting_of(split)] = list(check_there(pattern(config, split, ""), split))
            check_formats(there[setting_of(split)], setting_of(split))
    return there


def identity(config: DataConfig) -> dict[str, Any]:
    """What a position in the training data depends on: the files' names and bytes, and the fields.

    As macros that are None where they are not set.
    """
    fields = None if config.task_fields is None else dict(sorted(config.task_fields.items()))
    if "train" not in (config.task_files or {}):
        return {"TASK_FILES": None, "TASK_FIELDS": fields}
    files = check_there(pattern(config, "train", "*"), "train")
    found = sorted((path.rsplit("/", 1)[-1], size) for path, size in files.items())
    digest = hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16]
    return {"TASK_FILES": [(config.task_files or {})["train"], digest], "TASK_FIELDS": fields}


def with_files(task: Any, config: DataConfig, alone: bool) -> Any | None:
    """A task that reads TASK_FILES; as it is where none are set.

    Args:
      alone: whether it is no mixture's; of a mixture's, splits without files are left out.

    Returns:
      the task; None where it is a mixture's and has no files.

    Raises:
      UserError: it reads no TFDS dataset that files could stand for.
    """
    import seqio

    from switchx.data.tasks.table_source import TableSource

    if config.task_files is None or isinstance(task.source, TableSource):
        return task
    if not isinstance(task.source, seqio.TfdsDataSource) or task.source.tfds_dataset.name is None:
        raise UserError(
            f"TASK_FILES={dict(config.task_files)!r} takes the place of a TFDS dataset, and the "
            f"task {task.name!r} reads none: leave TASK_FILES unset."
        )
    dataset, of = dataset_of(task.source)
    if not alone and CONFIG not in "".join(config.task_files.values()):
        raise UserError(
            f"TASK_FILES={dict(config.task_files)!r} is for one task, and "
            f"MIXTURE_OR_TASK_NAME={config.mixture_or_task_name!r} is a mixture: put {CONFIG} "
            f"where the paths of its sets differ, as in '/data/glue/{CONFIG}/train-*.parquet'."
        )
    patterns = {
        split: pattern(config, split, of)
        for split in config.task_files
        if split in (task.source._splits or config.task_files)  # TFDS would have to be asked
    }
    if not alone:
        patterns = {split: found for split, found in patterns.items() if _there(found, split)}
    return task.replace(source=_source(config, patterns, dataset, of)) if patterns else None


def say_what_is_missing(mixture: Any, found: Any, config: DataConfig) -> None:
    """Names the tasks of a mixture that have no files of TASK_FILES and are left out, once.

    Those without examples to learn from or to be evaluated on are left out in silence.

    Raises:
      UserError: there are files of none.
    """
    if config.task_files is None:
        return
    if found is mixture:
        dataset, of = dataset_of(mixture.tasks[0].source)
        split = next(iter(config.task_files))
        check_there(pattern(config, split, of), split, published.url(dataset, of))
    left = {task.name for task in found.tasks}
    out = [
        task.name
        for task in mixture.tasks
        if task.name not in left and tuple(task.source._splits) != ("test",)
    ]
    if out:
        say_once(f"TASK_FILES has no files for {', '.join(out)} of {mixture.name}: left out")


@functools.cache
def say_once(sentence: str) -> None:
    """Prints a sentence to stderr, the first time."""
    remark(sentence)


def own_source(config: DataConfig) -> Any:
    """The source of the task whose 'inputs' and 'targets' TASK_FIELDS names."""
    from switchx.data.tasks.table_fields import Field

    patterns = {split: pattern(config, split, "") for split in config.task_files or {}}
    return _table(config, patterns, {"inputs": Field("text"), "targets": Field("text", many=True)})


def dataset_of(source: Any) -> tuple[str, str]:
    """The name of a TFDS source's dataset, and of its configuration, or the same again."""
    dataset, _, of = source.tfds_dataset.name.partition(":")[0].partition("/")
    return dataset, of or dataset


def _there(found: str, split: str) -> bool:
    return bool(storage.list_files(found, f"TASK_FILES[{split!r}]"))


def _source(config: DataConfig, patterns: dict[str, str], dataset: str, of: str) -> Any:
    """A source of files in the layout that TFDS has of a dataset."""
    import tensorflow_datasets as tfds

    from switchx.data.tasks.table_source import fields_of

    name = dataset if of == dataset else f"{dataset}/{of}"
    features = tfds.builder(name).info.features  # of any version: files are of none
    alone, optional = published.ALONE.get(dataset), published.OPTIONAL.get(dataset, ())
    fields = {
        name: field._replace(
            optional=name in optional, also=published.LABELS.get(dataset, field.also)
        )
        for name, field in fields_of(features).items()
        if alone is None or name in alone
    }
    known, origin = published.PLACES.get(dataset, {}), published.url(dataset, of)
    return _table(config, patterns, fields, known, origin)


def _table(
    config: DataConfig,
    patterns: dict[str, str],
    fields: Mapping[str, Any],
    known: Mapping[str, Any] | None = None,
    origin: str | None = None,
) -> Any:
    from switchx.data.tasks.table_fields import Places
    from switchx.data.tasks.table_source import TableSource

    places = {
        split: Places(fields, config.task_fields or {}, known or {}, setting_of(split))
        for split in patterns
    }
    return TableSource(patterns, fields, places, origin)
