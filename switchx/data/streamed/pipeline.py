"""From a seqio task to a tf.data pipeline of rows, and what it reports when it cannot read."""

import contextlib
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

import seqio
import tensorflow as tf

from switchx.data.config import FEATURES, DataConfig
from switchx.data.tasks import mixing, registry
from switchx.data.tasks.table_source import TableSource
from switchx.data.tasks.text_source import TextSource
from switchx.data.tasks.texts import LineCounter
from switchx.errors import UserError, first_line

_EVAL_SEED = 0  # the same blanks in every run, whatever its SEED


def endless(provider: Any, config: DataConfig, shard: int, block: int) -> tf.data.Dataset:
    """The rows of one shard of the train split without end, shuffled and corrupted each epoch.

    A shard is some of the source's files, or where there are fewer of them some of its examples.

    Args:
      block: rows of it in a step, by which MIXTURE_STARTS counts.
    """
    provider = mixing.joining(provider, config, block)
    info = seqio.ShardInfo(shard, config.shards) if config.shards > 1 else None
    return _rows(provider, config, "train", config.seed, shuffle=True, num_epochs=None, shard=info)


def one_pass(provider: Any, config: DataConfig, split: str) -> tf.data.Dataset:
    """The rows of a split once, in order; of a mixture those of all its tasks, taking turns."""
    provider = mixing.to_the_end(provider)
    rows = _rows(provider, config, split, _EVAL_SEED, shuffle=False, num_epochs=1)
    return rows.with_options(reproducible())


def task_examples(task: Any, config: DataConfig, split: str) -> tf.data.Dataset:
    """The examples of a split once, in order, cut to the config's lengths, with all they have."""
    read = _examples
    if not registry.needs_autograph(task):
        read = tf.autograph.experimental.do_not_convert(read)
    lengths = dict(config.feature_lengths)
    with building_errors(task.name, lengths):
        examples = read(task, lengths, split, _EVAL_SEED, False, 1, None)
        return examples.with_options(reproducible())


def reproducible() -> tf.data.Options:
    """Options under which a pipeline gives the same rows each time, and can be saved."""
    options = tf.data.Options()
    options.deterministic = True
    # Parsing JSON is Python, which a saved position cannot hold and does not need to.
    options.experimental_external_state_policy = tf.data.experimental.ExternalStatePolicy.IGNORE
    return options


def line_counters(provider: Any) -> list[LineCounter]:
    """The counters of a provider's sources of text."""
    sources = (task.source for task in seqio.get_subtasks(provider))
    return [source.counter for source in sources if isinstance(source, TextSource)]


def _failures(provider: Any) -> list[str]:
    """Why sources that are read in Python have stopped."""
    sources = [task.source for task in seqio.get_subtasks(provider)]
    tables = [source.failure for source in sources if isinstance(source, TableSource)]
    found = [*(counter.failure for counter in line_counters(provider)), *tables]
    return [failure for failure in found if failure is not None]


@contextlib.contextmanager
def reporting_errors(provider: Any, config: DataConfig) -> Iterator[None]:
    """Turns what TensorFlow raises while it reads into one sentence."""
    try:
        yield
    except tf.errors.OpError as error:
        # An iterator that these frames keep would be ended with the interpreter, whose threads then
        # wait for Python forever.
        traceback.clear_frames(error.__traceback__)
        for failure in _failures(provider):
            raise UserError(failure) from None
        raise UserError(
            f"MIXTURE_OR_TASK_NAME={config.mixture_or_task_name!r} cannot be read: "
            f"{first_line(error)}"
        ) from error


@contextlib.contextmanager
def building_errors(name: str, lengths: Mapping[str, int]) -> Iterator[None]:
    """Turns what a task's own functions raise while its pipeline is made into one sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # a user's code: anything can come out of it
        raise UserError(
            f"MIXTURE_OR_TASK_NAME={name!r} cannot be built with TASK_FEATURE_LENGTHS "
            f"{dict(lengths)} ({type(error).__name__}: {first_line(error)}): mend the task, or "
            "give lengths that it takes."
        ) from error


def _rows(
    provider: Any,
    config: DataConfig,
    split: str,
    seed: int,
    shuffle: bool,
    num_epochs: int | None,
    shard: seqio.ShardInfo | None = None,
) -> tf.data.Dataset:
    read, padded = _examples, _padded
    if not registry.needs_autograph(provider):
        read, padded = map(tf.autograph.experimental.do_not_convert, (read, padded))
    convert = _packed if config.pack else padded  # seqio's packing branches on tensors
    lengths = dict(config.feature_lengths)
    with building_errors(provider.name, lengths):
        examples = read(provider, lengths, split, seed, shuffle, num_epochs, shard)
        return convert(examples, lengths).map(_with_float_weights)


def _examples(
    provider: Any,
    lengths: dict[str, int],
    split: str,
    seed: int,
    shuffle: bool,
    num_epochs: int | None,
    shard: seqio.ShardInfo | None,
) -> tf.data.Dataset:
    return provider.get_dataset(
        lengths,
        split=split,
        shuffle=shuffle,
        seed=seed,
        num_epochs=num_epochs,
        shard_info=shard,
        try_in_mem_cache=False,  # a cache would be part of every saved position
    )


def _padded(examples: tf.data.Dataset, lengths: dict[str, int]) -> tf.data.Dataset:
    """A row for each example."""
    return seqio.EncDecFeatureConverter(pack=False)(examples, task_feature_lengths=lengths)


def _packed(examples: tf.data.Dataset, lengths: dict[str, int]) -> tf.data.Dataset:
    """Rows of as many whole examples as fit, in their order."""
    # seqio numbers the segments of inputs and targets apart: one that is empty would shift them.
    examples = examples.map(_features_alone).filter(_has_both)
    rows = seqio.EncDecFeatureConverter(pack=True)(examples, task_feature_lengths=lengths)
    return rows.map(_without_positions)


def _features_alone(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    return {name: example[name] for name in FEATURES}  # seqio warns of every other


def _has_both(example: dict[str, tf.Tensor]) -> tf.Tensor:
    return tf.reduce_any(example["inputs"] != 0) & tf.reduce_any(example["targets"] != 0)


def _without_positions(row: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """The model's bias goes by distance, which is that within an example."""
    return {name: x for name, x in row.items() if not name.endswith("_positions")}


def _with_float_weights(row: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    weights = tf.cast(row["decoder_loss_weights"], tf.float32)
    return {**row, "decoder_loss_weights": weights}
