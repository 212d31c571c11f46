"""What the model is fed: tasks, vocabularies and batches.

Importing this is free; TensorFlow and seqio are imported when a pipeline is built.
"""

import dataclasses
import functools
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from switchx.data.batches import Batch, Stream, targets_of, watched
from switchx.data.config import SPLITS, DataConfig
from switchx.data.tasks.vocabularies import Vocabulary
from switchx.errors import UserError

if TYPE_CHECKING:
    # These from __getattr__:
    from switchx.data.checks import (
        asked_ids,
        check_objective,
        check_settings,
        known_ids,
        preflight,
    )
    from switchx.data.grading import GradedTask
    from switchx.data.prepared.set_plan import SetInfo
    from switchx.data.tasks.vocabulary_files import vocabulary_model
    from switchx.data.texts import Text, read_text

__all__ = [
    "Batch",
    "DataConfig",
    "Stream",
    "Vocabulary",
    "asked_ids",
    "check_objective",
    "check_position",
    "check_settings",
    "described_sources",
    "eval_batches",
    "graded_tasks",
    "known_ids",
    "num_examples",
    "order_settings",
    "other_sources",
    "preflight",
    "prepare",
    "read_text",
    "targets_of",
    "task_eval_batches",
    "text_batches",
    "train_stream",
    "ungraded_tasks",
    "vocabulary",
    "vocabulary_digest",
    "vocabulary_model",
    "vocabulary_size",
]


# What is imported when it is first asked for, and where it is.
_ELSEWHERE = {
    "asked_ids": "checks",
    "check_objective": "checks",
    "check_settings": "checks",
    "known_ids": "checks",
    "preflight": "checks",
    "read_text": "texts",
    "vocabulary_model": "tasks.vocabulary_files",
}


def __getattr__(name: str) -> Any:
    if name not in _ELSEWHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_ELSEWHERE[name]}"), name)


def vocabulary(config: DataConfig) -> Vocabulary:
    """Returns a config's vocabulary; for the tasks of this package without importing TensorFlow.

    That of prepared data lies beside them, and is meant where VOCABULARY is left at 'default'.

    Raises:
      UserError: it is not there or cannot be read.
    """
    if config.prepared_dir is not None and config.vocabulary == "default":
        from switchx.data.prepared import sets

        return sets.vocabulary(config)
    from switchx.data.tasks.lookup import open_vocabulary

    return open_vocabulary(config)


def vocabulary_digest(config: DataConfig) -> str:
    """The digest of a config's vocabulary; of prepared data without reading the vocabulary itself.

    Raises:
      UserError: as `vocabulary`.
    """
    infos = _set_infos(config)
    return infos[0].plan.vocabulary if infos else vocabulary(config).digest


def vocabulary_size(config: DataConfig) -> int:
    """How many ids a config's vocabulary has; of prepared data without reading the vocabulary.

    Raises:
      UserError: as `vocabulary`.
    """
    infos = _set_infos(config)
    return max(info.plan.vocab_size for info in infos) if infos else vocabulary(config).size


def _set_infos(config: DataConfig) -> "list[SetInfo]":
    """The sets that say a config's vocabulary; none where VOCABULARY says it and they are gone.

    So a model answers where its data is not. What reads the sets misses them itself.
    """
    if config.prepared_dir is None:
        return []
    from switchx.data.prepared.sets import set_infos

    try:
        return list(set_infos(config))
    except UserError:
        if config.vocabulary == "default":
            raise
        return []


def prepare(
    config: DataConfig,
    splits: Sequence[str] = SPLITS,
    shards: int | None = None,
    beam_flags: Sequence[str] = (),
) -> "list[SetInfo]":
    """Prepares a task or mixture below prepared_dir; see `switchx.data.prepared.preparation`."""
    from switchx.data.tensorflow_loader import load_tensorflow

    load_tensorflow()
    from switchx.data.prepared import preparation

    return preparation.prepare(config, splits, shards, beam_flags)


def train_stream(config: DataConfig, shards: Sequence[int] = (0,)) -> Stream:
    """Returns the endless stream of these shards' rows; UserError where something is missing."""
    if config.logits is not None:
        from switchx.data.taught.stream import TaughtStream

        alone = dataclasses.replace(config, logits=None)
        return TaughtStream(train_stream(alone, shards), config, config.logits, shards)
    if config.encoder_alone:
        from switchx.data.masked import MaskedStream, converter

        whole = dataclasses.replace(config, encoder_alone=False)
        return MaskedStream(train_stream(whole, shards), converter(config, _mask_id(config)))
    if config.prepared_dir is not None:
        from switchx.data.prepared.stream import PreparedStream

        return PreparedStream(config, shards)
    from switchx.data import embedded

    if embedded.reads(config):
        return embedded.EmbeddedStream(config, shards)
    from switchx.data.tensorflow_loader import load_tensorflow

    load_tensorflow()
    from switchx.data.streamed.stream import StreamedStream

    return StreamedStream(config, shards)


def _mask_id(config: DataConfig) -> int:
    """The token that stands for what an encoder alone is to find: the first sentinel."""
    if config.prepared_dir is not None:
        from switchx.data.prepared.sets import set_infos

        return set_infos(config)[0].plan.corruption.first_sentinel
    return vocabulary(config).sentinel_id(0)


def check_position(config: DataConfig, saved: bytes) -> None:
    """Raises UserError where a saved position is of other settings than a config's.

    Takes moments, and no TensorFlow for the tasks of this package. A damaged position is no one's:
    `Stream.restore` says so.
    """
    from switchx.data.streamed import position

    found = position.saved_settings(saved)
    if found is None:
        return
    if config.prepared_dir is not None:
        from switchx.data.prepared.sets import set_infos
        from switchx.data.prepared.stream import settings_of

        position.check_settings(found, settings_of(config, set_infos(config)))
    else:
        position.check_settings(found, position.source_settings(config))
        position.check_settings(found, position.settings_of(config, vocabulary(config).digest))


def order_settings(config: DataConfig) -> dict[str, Any]:
    """The settings that decide which example of prepared data is a run's n-th, as positions do.

    Raises:
      UserError: a set is missing, damaged or was cut with other settings.
    """
    from switchx.data.prepared.sets import set_infos
    from switchx.data.prepared.stream import settings_of

    return settings_of(config, set_infos(config))


def eval_batches(config: DataConfig, task: str | None = None) -> Iterator[Batch]:
    """Returns the evaluation batches, the same at every call; UserError as `train_stream`.

    Of one task alone where one is named, as `task_eval_batches` does.
    """
    if config.encoder_alone:
        from switchx.data.masked import converter

        whole = dataclasses.replace(config, encoder_alone=False)
        return map(converter(config, _mask_id(config)), eval_batches(whole, task))
    if config.prepared_dir is not None:
        from switchx.data.prepared.stream import evaluation_batches

        return watched(evaluation_batches(config, task), config)
    from switchx.data import embedded

    if embedded.reads(config) and task is None:
        return embedded.evaluation_batches(config)
    from switchx.data.tensorflow_loader import load_tensorflow

    load_tensorflow()
    from switchx.data.streamed import stream

    return watched(stream.evaluation_batches(config, task), config)


def task_eval_batches(config: DataConfig) -> dict[str, Callable[[], Iterator[Batch]]]:
    """Returns what makes the evaluation batches of each task that is evaluated on its own.

    These are the tasks of a mixture that have a validation split, where the config says so.
    """
    from switchx.data import embedded

    if not config.eval_each_task or embedded.reads(config):  # no mixture
        return {}
    if config.prepared_dir is not None:
        from switchx.data.prepared.sets import evaluated_tasks
    else:
        from switchx.data.tasks.lookup import evaluated_tasks

    return {task: functools.partial(eval_batches, config, task) for task in evaluated_tasks(config)}


def text_batches(text: "Text", config: DataConfig) -> list[Batch]:
    """The evaluation batches of a text, corrupted as in pretraining, without TensorFlow.

    Raises:
      UserError: as `vocabulary`, or the lengths have no room for a row of text.
    """
    from switchx.data import texts

    return texts.text_batches(text, config, vocabulary(config))


def described_sources(config: DataConfig) -> list[str]:
    """A line for each of a config's tasks of text: its training files, and what a document is.

    None of a prepared set.
    """
    if config.prepared_dir is not None:
        return []
    from switchx.data.tasks import text_files

    return text_files.described(config)


def other_sources(config: DataConfig, globs: Mapping[str, str]) -> list[str]:
    """What a config's prepared sets were made of, where globs of splits' files name nothing of it.

    [] without sets that can be read, and of sets that do not say it.
    """
    from switchx.data.prepared import sets

    try:
        found = [sets.other_sources(config, split, of) for split, of in globs.items()]
    except UserError:  # it is said where the set is read
        return []
    return next(filter(None, found), [])


def num_examples(config: DataConfig) -> int | None:
    """Examples of the validation split of prepared data; None where only reading all would tell."""
    if config.prepared_dir is None:
        return None
    from switchx.data.prepared.sets import set_infos

    infos = [info for info in set_infos(config) if "validation" in info.shards]
    packed = any(info.plan.pack for info in infos)  # then a record holds several
    return None if packed else sum(info.records("validation") for info in infos)


def graded_tasks(config: DataConfig, most: int | None = None) -> "list[GradedTask]":
    """Each task of a config that has metrics of its own and a validation split.

    TensorFlow is imported but for this package's pretraining tasks, which have no metrics. Of a
    prepared set the task's own source must be there too; where the task is not, there are none.

    Args:
      most: so many examples of each, the first ones; None is all.

    Raises:
      UserError: as `train_stream`, or a metric function has arguments that seqio does not know.
    """
    if _is_without_metrics(config):
        return []
    from switchx.data import grading

    return grading.graded_tasks(config, most)


def ungraded_tasks(config: DataConfig) -> dict[str, str]:
    """The other tasks of a config by name, and why each has no scores.

    Raises:
      UserError: as `graded_tasks`.
    """
    if _is_without_metrics(config):
        return {}
    from switchx.data import grading

    return grading.ungraded_tasks(config)


def _is_without_metrics(config: DataConfig) -> bool:
    from switchx.data.tasks import names

    own = {*names.MASKED, *names.UL2, *names.DENOISER_OF}
    own |= {n for n in names.SPAN_CORRUPTION if n.endswith("_span_corruption")}
    if own.issuperset(config.names):
        return True  # known without asking seqio
    from switchx.data.tensorflow_loader import load_tensorflow

    load_tensorflow()
    if config.prepared_dir is None:
        return False
    from switchx.data.tasks.lookup import find_provider

    try:
        find_provider(config)
    except UserError:  # a prepared set is read without it
        return True
    return False
