"""From a seqio task to the records of a prepared set: tokenized, and cut once."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from switchx.data.config import DataConfig
from switchx.data.prepared.set_plan import SetPlan
from switchx.data.streamed.pipeline import building_errors
from switchx.data.tasks.objectives import DOCUMENTS_IN_A_ROW, Denoiser, span_lengths
from switchx.data.tasks.span_corruption import (
    denoiser_of,
    is_span_corruption,
)
from switchx.data.tasks.vocabularies import Vocabulary

_SEED = 0  # of what a task draws when it is prepared, other than its spans
_OPEN_ROWS = 10  # that a short example may be packed into
_SPAN_SETTINGS = {"noise_density", "mean_noise_span_length", "mode"}


class Reading:
    """Counts what a source gave so far; tf.data calls it from its own threads."""

    def __init__(self) -> None:
        self.documents = 0
        self.text_bytes = 0
        self._lock = threading.Lock()

    def note(self, size: int) -> np.ndarray:
        """Notes one document."""
        with self._lock:
            self.documents += 1
            self.text_bytes += int(size)
        return np.array(True)


def plan_of(
    task: Any, config: DataConfig, vocabulary: Vocabulary, shards: Mapping[str, int]
) -> SetPlan:
    """The plan of a task's set under a config."""
    corrupts = _span_step(task) is not None
    density, mean_span, mode = denoiser_of(task) or Denoiser()
    mode_ids = vocabulary.encode(mode) if corrupts and mode else []
    room = config.feature_lengths["inputs"] - len(mode_ids)
    cut = span_lengths(room, density, mean_span).tokens
    return SetPlan(
        task=task.name,
        feature_lengths=dict(sorted(config.feature_lengths.items())),
        vocabulary=vocabulary.digest,
        vocab_size=vocabulary.size,
        eos_id=vocabulary.eos_id,
        cut=cut if corrupts else None,
        density=density,
        mean_span=mean_span,
        add_eos=[_ends(task, "inputs"), _ends(task, "targets")],
        pack=config.pack,
        shards=dict(shards),
        sentinels=None if vocabulary.ids.is_t5s else list(vocabulary.ids.sentinels.row),
        mode=mode_ids or None,
    )


def records_of(
    task: Any, plan: SetPlan, split: str, shard: int, reading: Reading
) -> Iterator[list[np.ndarray]]:
    """Yields the arrays of each record of a shard, the same ones at every call."""
    info = seqio.ShardInfo(shard, plan.shards[split])
    if plan.cut is not None:
        return _rows(_documents(task, split, info, reading), plan.cut)
    examples = _examples(task, plan, split, info, reading)
    return packed(examples, plan.feature_lengths) if plan.pack else examples


def _documents(task: Any, split: str, info: seqio.ShardInfo, reading: Reading) -> Iterator[Any]:
    """The tokens of DOCUMENTS_IN_A_ROW documents at a time, joined."""
    before = [_counting(reading), *task.preprocessors[: _span_step(task)]]
    features = {"targets": task.output_features["targets"]}
    tokenizing = task.replace(preprocessors=before, output_features=features)
    documents = _dataset(tokenizing, None, split, info)
    tokens = documents.map(lambda document: document["targets"])
    return (group.values.numpy() for group in tokens.ragged_batch(DOCUMENTS_IN_A_ROW))


def _rows(groups: Iterator[np.ndarray], cut: int) -> Iterator[list[np.ndarray]]:
    for tokens in groups:
        for start in range(0, len(tokens), cut):
            yield [tokens[start : start + cut]]


def _examples(
    task: Any, plan: SetPlan, split: str, info: seqio.ShardInfo, reading: Reading
) -> Iterator[list[np.ndarray]]:
    counted = task.replace(preprocessors=[_counting(reading), *task.preprocessors])
    lengths = dict(plan.feature_lengths)
    for example in _dataset(counted, lengths, split, info).as_numpy_iterator():
        yield [example["inputs"], example["targets"]]


def _dataset(
    task: Any, lengths: Mapping[str, int] | None, split: str, info: seqio.ShardInfo
) -> tf.data.Dataset:
    with building_errors(task.name, lengths or {}):
        dataset = task.get_dataset(
            lengths,
            split=split,
            shuffle=False,
            seed=_SEED,
            shard_info=info if info.num_shards > 1 else None,
            try_in_mem_cache=False,
        )
    options = tf.data.Options()
    options.deterministic = True
    return dataset.with_options(options)


def _counting(reading: Reading) -> Any:
    """A preprocessor that changes nothing and counts documents and the bytes of their strings."""

    def count(document: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        strings = [x for x in document.values() if x.dtype == tf.string and x.shape.rank == 0]
        size = tf.add_n([tf.strings.length(x) for x in strings]) if strings else tf.constant(0)
        noted = tf.numpy_function(reading.note, [size], tf.bool)
        with tf.control_dependencies([noted]):
            return {name: tf.identity(x) for name, x in document.items()}

    return lambda dataset: dataset.map(count)


def packed(
    examples: Iterator[list[np.ndarray]], lengths: Mapping[str, int]
) -> Iterator[list[np.ndarray]]:
    """Puts each example into the first of a few open rows that has room for it.

    An example without inputs or without targets is left out: it could not be told from padding.
    """
    rows: list[list[np.ndarray]] = []
    for example in examples:
        if not all(map(len, example)):
            continue
        found = next((row for row in rows if _has_room(row, example, lengths)), None)
        if found is not None:
            found += example
            continue
        rows.append(list(example))
        if len(rows) > _OPEN_ROWS:
            yield rows.pop(0)
    yield from rows


def _has_room(
    row: Sequence[np.ndarray], example: Sequence[np.ndarray], lengths: Mapping[str, int]
) -> bool:
    inputs, targets = (sum(map(len, [*row[side::2], example[side]])) for side in (0, 1))
    return inputs <= lengths["inputs"] and targets <= lengths["targets"]


def _span_step(task: Any) -> int | None:
    """Which step of a task is span corruption as we do it ourselves; None where there is none."""
    number = next((i for i, s in enumerate(task.preprocessors) if is_span_corruption(s)), None)
    if number is None:
        return None
    settings = set(getattr(task.preprocessors[number], "keywords", {}))
    after = {getattr(step, "func", step) for step in task.preprocessors[number + 1 :]}
    after.discard(seqio.preprocessors.append_eos_after_trim)
    return None if after or settings - _SPAN_SETTINGS else number


def _ends(task: Any, feature: str) -> bool:
    steps = [getattr(step, "func", step) for step in task.preprocessors]
    appends = seqio.preprocessors.append_eos_after_trim in steps
    return appends and task.output_features[feature].add_eos
