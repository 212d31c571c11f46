"""An encoder alone, asked: what belongs in the blanks of a text, all of them found in one pass.

A blank is one masked token. Blanks come, and answers go, in the words of span corruption, each
behind the blank's sentinel, so that whoever reads a decoder's answers reads these.
"""

import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from switchx.data import Vocabulary
from switchx.inference.batches import LEAST_INPUT, Rows, bucket, in_batches, padded, put, whole
from switchx.model import NO_NOISE, Groupings, Model, ModelConfig, Params


def predict_masks(
    model: Model, params: Params, rows: Rows, vocabulary: Vocabulary, batch_size: int
) -> Iterator[list[int]]:
    """Answers to encoder inputs, in their order, a batch at a time.

    Args:
      rows: token ids, none of them 0, a sentinel for each blank.

    Yields:
      Of each row its sentinels, each with the likeliest token of text behind it, and the end of
      sequence.
    """
    sentinels = _sentinels(vocabulary)
    never_V = np.zeros(model.config.vocab_size, bool)
    never_V[[*sentinels, vocabulary.pad_id, vocabulary.eos_id]] = True
    never_V[vocabulary.size :] = True
    for numbers in in_batches(range(len(rows)), batch_size):
        own = [rows[n] for n in numbers]
        M = bucket(max(map(len, own)), LEAST_INPUT)
        token_BM = padded([_masked(row, vocabulary) for row in own], batch_size, M)
        found_BM = whole(_likeliest(model.config, params, put(token_BM), jnp.asarray(never_V)))
        for row, found_M in zip(own, found_BM, strict=False):
            pairs = zip(row, found_M.tolist(), strict=False)
            filled = [(token, found) for token, found in pairs if token in sentinels]
            yield [*(token for pair in filled for token in pair), vocabulary.eos_id]


def in_place(
    inputs: Sequence[int], target: Sequence[int], vocabulary: Vocabulary
) -> tuple[list[int], list[int]]:
    """The rows that a target for a text's blanks is scored with: what is masked, and what is whole.

    Args:
      inputs: a text's tokens, a sentinel for each blank.
      target: its blanks' tokens, each blank's behind its sentinel.

    Returns:
      as many tokens of each; a blank has as many masks as the target has tokens for it.
    """
    sentinels, current = _sentinels(vocabulary), -1
    spans: dict[int, list[int]] = {}
    for token in target:
        if token in sentinels:
            current = token
            spans.setdefault(current, [])
        elif token != vocabulary.eos_id and current in spans:
            spans[current].append(token)
    masked: list[int] = []
    filled: list[int] = []
    for token in inputs:
        span = spans.get(token, [token])
        filled += span
        masked += [vocabulary.sentinel_id(0)] * len(span) if token in spans else span
    return masked, filled


def _sentinels(vocabulary: Vocabulary) -> set[int]:
    return {vocabulary.sentinel_id(number) for number in range(vocabulary.sentinels)}


def _masked(row: Sequence[int], vocabulary: Vocabulary) -> list[int]:
    """Every blank as training has it: the first sentinel."""
    sentinels, mask = _sentinels(vocabulary), vocabulary.sentinel_id(0)
    return [mask if token in sentinels else token for token in row]


@functools.partial(jax.jit, static_argnames="config")
def _likeliest(
    config: ModelConfig, params: Params, token_BM: jax.Array, never_V: jax.Array
) -> jax.Array:
    logits_BMV = logits_at_inputs(config, params, token_BM)
    return jnp.argmax(jnp.where(never_V, -jnp.inf, logits_BMV), axis=-1)


def logits_at_inputs(config: ModelConfig, params: Params, token_BM: jax.Array) -> jax.Array:
    """float32 [B, M, V]; each row routed on its own, nothing dropped (Groupings.for_answers)."""
    groupings = Groupings.for_answers(config.switch, token_BM.shape[1], target_length=1)
    module = Model.of(config).bind(params)
    return module.at_inputs(token_BM, NO_NOISE, groupings=groupings).logits_BLV
