"""Any number of inputs of any length, through programs compiled for a few shapes."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from switchx.data import Vocabulary
from switchx.inference.batches import LEAST_INPUT, Rows, bucket, in_batches, padded, same_shapes
from switchx.inference.beam import Beam
from switchx.inference.blanks import Answer, answer, to_tokens
from switchx.inference.config import GREEDY, DecodingConfig
from switchx.inference.decoding import EOS_ID, Drawing, noise_of
from switchx.inference.places import Given, Places
from switchx.inference.search import Method
from switchx.model import Model, Params

# Batches of rows that are sorted by length together; what is left over of each is less the more.
_WINDOW = 64


def fill_blanks(
    model: Model,
    params: Params,
    vocabulary: Vocabulary,
    texts: Sequence[str],
    decoding: DecodingConfig,
    max_input_length: int,
) -> list[Answer]:
    """Fills the blanks of texts (see switchx.inference.blanks), each with the best answer found.

    Raises:
      UserError: a text's blanks cannot be read, or it is too long.
    """
    rows = [to_tokens(text, vocabulary) for text in texts]
    answers = predict(model, params, rows, decoding, max_input_length, vocabulary.eos_id)
    pairs = zip(texts, answers, strict=True)
    return [answer(text, tokens, vocabulary) for text, tokens in pairs]


def predict(
    model: Model,
    params: Params,
    rows: Rows,
    decoding: DecodingConfig,
    max_input_length: int,
    eos_id: int = EOS_ID,
) -> Iterator[list[int]]:
    """Answers to encoder inputs, in their order, some batches at a time.

    Inputs of like lengths are in a batch together, and a row that has its answer gives its place
    in the batch to another. Under a mesh (`jax.set_mesh`) the batch size must be a multiple of
    data x expert; the rows are shared out over its devices, and every host gets all answers.

    Args:
      rows: token ids, none of them 0, each at most max_input_length of them.

    Yields:
      The tokens of each answer, the end of sequence included.
    """
    longest = max(map(len, rows), default=0)
    if longest > max_input_length:
        raise ValueError(f"a row of {longest} tokens, where at most {max_input_length} fit")
    method, given = _method(decoding, eos_id), Given(rows, _given(decoding))
    places = Places(model, params, method, given, decoding.batch_size)
    for part in in_batches(range(len(rows)), _WINDOW * decoding.batch_size):
        answers: dict[int, list[int]] = {}
        for M, numbers in same_shapes(
            part, lambda n: _input_length(len(rows[n]), max_input_length)
        ):
            answers.update(places.answers(numbers, M))
        yield from (answers[number] for number in part)


def _method(decoding: DecodingConfig, eos_id: int) -> Method:
    if decoding.method == "beam":
        return Beam(decoding.length, decoding.num_beams, eos_id)
    sampling = GREEDY if decoding.method == "greedy" else decoding.sampling
    return Drawing(decoding.length, sampling, eos_id)


def _given(decoding: DecodingConfig) -> Callable[[np.ndarray], Any]:
    """See Given.of_rows. A row keeps its number, and so its draws, in whichever batch it is."""
    if decoding.method == "beam":
        return lambda row_B: np.full(len(row_B), decoding.length_penalty, np.float32)
    return lambda row_B: noise_of(decoding.seed, row_B)


def _input_length(tokens: int, max_length: int) -> int:
    return min(bucket(tokens, LEAST_INPUT), max_length)


def pad(rows: Rows, batch_size: int, max_length: int) -> np.ndarray:
    """int32 [batch_size, M], M one of a few lengths that holds every row, at most max_length."""
    longest = max(map(len, rows))
    if longest > max_length:
        raise ValueError(f"a row of {longest} tokens, where at most {max_length} fit")
    return padded(rows, batch_size, _input_length(longest, max_length))
