"""T5's objective as a seqio preprocessor: spans of a text are cut out, and are to be filled in.

Raffel et al. 2020, section 3.1.4. Draw for draw what `t5.data.preprocessors.span_corruption` makes
of the same seed, as a test holds; it stands here because the package `t5` requires two nightly
packages that unpack over seqio and tensorflow-datasets. `spans` has the same for prepared sets.
"""

import functools
import sys
from collections.abc import Mapping
from typing import Any

import seqio
import tensorflow as tf

from switchx.data.tasks.ids import Ids, Sentinels
from switchx.data.tasks.objectives import (
    CHUNK,
    DOCUMENTS_IN_A_ROW,
    MEAN_SPAN,
    NOISE_DENSITY,
    Denoiser,
    span_lengths,
)
from switchx.errors import UserError


def span_corruption(
    dataset: tf.data.Dataset,
    sequence_length: Mapping[str, int],
    output_features: Mapping[str, seqio.Feature],
    noise_density: float = NOISE_DENSITY,
    mean_noise_span_length: float = MEAN_SPAN,
    mode: str = "",
) -> tf.data.Dataset:
    """Turns {'targets': token ids} of documents into {'inputs', 'targets'} of full rows.

    Args:
      dataset: documents, tokenized, without an end of sequence.
      sequence_length: tokens in a row of 'inputs' and of 'targets', the end of sequence included.
      output_features: their vocabulary has the sentinels; of one that does not say where, they are
        the last ids.
      noise_density: share of the tokens that is cut out.
      mean_noise_span_length: tokens in a span, on average.
      mode: a text whose tokens stand before the inputs of each row.
    """
    before = output_features["inputs"].vocabulary.encode(mode) if mode else []
    room = sequence_length["inputs"] - len(before)
    needs = span_lengths(room, noise_density, mean_noise_span_length)
    if sequence_length["targets"] < needs.targets:
        raise ValueError(f"targets have {sequence_length['targets']} tokens, not {needs.targets}")
    sentinels = sentinels_of(output_features["targets"].vocabulary)

    @seqio.map_over_dataset(num_seeds=1)
    def corrupted(row: Mapping[str, tf.Tensor], seed: tf.Tensor) -> dict[str, tf.Tensor]:
        tokens = row["targets"]
        seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 6))
        noise = _noise_mask(tf.size(tokens), noise_density, mean_noise_span_length, seeds[:2])
        inputs = _with_sentinels(tokens, noise, sentinels)
        if before:
            inputs = tf.concat([tf.constant(before, inputs.dtype), inputs], axis=0)
        return {"inputs": inputs, "targets": _with_sentinels(tokens, ~noise, sentinels)}

    return corrupted(full_rows(dataset, needs.tokens))


def full_rows(dataset: tf.data.Dataset, length: int) -> tf.data.Dataset:
    """Documents {'targets': token ids}, joined and cut into rows of a length, the last shorter."""
    return _rows(_joined(_chunks(_not_empty(dataset))), length)


def is_span_corruption(step: Any) -> bool:
    """Whether a task's preprocessor is this one, or t5's in a task of the user's."""
    t5 = sys.modules.get("t5.data.preprocessors")
    function = getattr(step, "func", step)
    return function is span_corruption or (t5 is not None and function is t5.span_corruption)


def denoiser_of(task: Any) -> Denoiser | None:
    """How a task corrupts spans, None where it does not."""
    for step in task.preprocessors:
        if is_span_corruption(step):
            chosen = getattr(step, "keywords", {})
            density = chosen.get("noise_density", NOISE_DENSITY)
            mean_span = chosen.get("mean_noise_span_length", MEAN_SPAN)
            return Denoiser(density, mean_span, chosen.get("mode", ""))
    return None


def sentinels_of(vocabulary: Any) -> Sentinels:
    """The sentinels of a seqio vocabulary: T5's but where it says otherwise."""
    ids: Ids = getattr(vocabulary, "ids", None) or Ids.as_t5(vocabulary.vocab_size, 0)
    return ids.sentinels


def as_ours(step: Any, task: str) -> Any:
    """A preprocessor; ours in the place of t5's span corruption, which takes the last ids for
    sentinels.

    Raises:
      UserError: it is t5's, with settings that ours has not.
    """
    if not is_span_corruption(step) or getattr(step, "func", step) is span_corruption:
        return step
    settings = getattr(step, "keywords", {})
    others = settings.keys() - {"noise_density", "mean_noise_span_length"}
    if others:
        raise UserError(
            f"MIXTURE_OR_TASK_NAME={task!r} corrupts spans by t5's function with {min(others)!r}, "
            "and its vocabulary's sentinels are not its last ids, where that function takes them "
            "from: give a vocabulary that ends with them, or a task without that setting."
        )
    return functools.partial(span_corruption, **settings)


def _not_empty(dataset: tf.data.Dataset) -> tf.data.Dataset:
    return dataset.filter(lambda document: tf.size(document["targets"]) != 0)


@seqio.map_over_dataset(num_seeds=1)
def _chunks(document: Mapping[str, tf.Tensor], seed: tf.Tensor) -> dict[str, tf.Tensor]:
    tokens = document["targets"]
    _, drawn = tf.unstack(tf.random.experimental.stateless_split(seed))
    count = _int(tf.math.ceil(_float(tf.size(tokens)) / CHUNK))
    start = CHUNK * tf.random.stateless_uniform([], maxval=count, dtype=tf.int32, seed=drawn)
    return {"targets": tokens[start : start + CHUNK]}


def _joined(dataset: tf.data.Dataset) -> tf.data.Dataset:
    def without_padding(batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        tokens = tf.reshape(batch["targets"], [-1])
        return {"targets": tf.boolean_mask(tokens, tokens != 0)}

    batches = dataset.padded_batch(DOCUMENTS_IN_A_ROW, padded_shapes={"targets": [-1]})
    return _not_empty(batches.map(without_padding, num_parallel_calls=tf.data.AUTOTUNE))


def _rows(dataset: tf.data.Dataset, length: int) -> tf.data.Dataset:
    @seqio.map_over_dataset(num_seeds=1)  # a seed that t5 takes and does not use
    def cut(document: Mapping[str, tf.Tensor], seed: tf.Tensor) -> tf.data.Dataset:
        del seed
        tokens = document["targets"]
        starts = tf.data.Dataset.range(0, tf.size(tokens, tf.int64), length)
        return starts.map(lambda start: {"targets": tokens[start : start + length]})

    return cut(dataset).flat_map(lambda rows: rows)


def _noise_mask(length: Any, density: float, mean_span: float, seeds: list[tf.Tensor]) -> tf.Tensor:
    """Which tokens are cut out: bool [length], spans of text and of noise in turn, text first."""
    whole = tf.maximum(length, 2)  # so that there is one of each
    noise = _int(tf.round(_float(whole) * density))
    noise = tf.clip_by_value(noise, 1, whole - 1)
    spans = tf.maximum(_int(tf.round(_float(noise) / mean_span)), 1)
    lengths = [_parts(whole - noise, spans, seeds[1]), _parts(noise, spans, seeds[0])]
    starts = tf.cumsum(tf.reshape(tf.stack(lengths, axis=1), [spans * 2]))[:-1]
    number = tf.cumsum(tf.math.unsorted_segment_sum(tf.ones_like(starts), starts, whole))
    return (number % 2 == 1)[:length]


def _parts(items: tf.Tensor, parts: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """The lengths of as many parts of `items`, none empty, all divisions equally likely."""
    ends_part = seqio.stateless_shuffle(_int(tf.range(items - 1) < parts - 1), seed)
    part = tf.cumsum(tf.pad(ends_part, [[1, 0]]))
    return tf.math.segment_sum(tf.ones_like(part), part)


def _with_sentinels(tokens: tf.Tensor, cut: tf.Tensor, sentinels: Sentinels) -> tf.Tensor:
    """Each run of tokens that are cut becomes one sentinel: the first, the next, ..."""
    follows_a_cut = tf.pad(cut[:-1], [[1, 0]])
    first = cut & ~follows_a_cut
    number = tf.cumsum(tf.cast(first, tokens.dtype)) - 1
    own = sentinels.first + sentinels.step * number
    return tf.boolean_mask(tf.where(first, own, tokens), ~(cut & follows_a_cut))


def _int(x: Any) -> tf.Tensor:
    return tf.cast(x, tf.int32)


def _float(x: Any) -> tf.Tensor:
    return tf.cast(x, tf.float32)
