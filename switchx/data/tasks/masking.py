"""Masked language modelling as a seqio preprocessor: tokens of a text are masked, and to be found.

As BERT's (Devlin et al. 2019, section 3.1), with every chosen token masked, as in T5's comparison
of objectives (Raffel et al. 2020, section 3.3.2): the targets are the whole text, so inputs and
targets are of one length. Draw for draw `t5.data.preprocessors.denoise` with `iid_noise_mask` and
`noise_token_to_sentinel`, as a test holds.
"""

from collections.abc import Mapping
from typing import Any

import seqio
import tensorflow as tf

from switchx.data.tasks.objectives import NOISE_DENSITY
from switchx.data.tasks.span_corruption import full_rows, sentinels_of


def mask_tokens(
    dataset: tf.data.Dataset,
    sequence_length: Mapping[str, int],
    output_features: Mapping[str, seqio.Feature],
    noise_density: float = NOISE_DENSITY,
) -> tf.data.Dataset:
    """Turns {'targets': token ids} of documents into {'inputs', 'targets'} of full rows.

    Args:
      dataset: documents, tokenized, without an end of sequence.
      sequence_length: tokens in a row, the end of sequence included.
      output_features: their vocabulary's first sentinel is the mask.
      noise_density: probability with which a token is masked.
    """
    mask = sentinels_of(output_features["targets"].vocabulary).first

    @seqio.map_over_dataset(num_seeds=1)
    def masked(row: Mapping[str, tf.Tensor], seed: tf.Tensor) -> dict[str, tf.Tensor]:
        tokens = row["targets"]
        drawn = tf.unstack(tf.random.experimental.stateless_split(seed, 6))[0]
        is_masked = tf.random.stateless_uniform([tf.size(tokens)], seed=drawn) < noise_density
        inputs = tf.where(is_masked, tf.cast(mask, tokens.dtype), tokens)
        return {"inputs": inputs, "targets": tokens}

    return masked(full_rows(dataset, min(sequence_length.values()) - 1))


def is_masking(step: Any) -> bool:
    """Whether a task's preprocessor is this one."""
    return getattr(step, "func", step) is mask_tokens
