"""Any number of inputs of any length, through programs compiled for a few shapes."""

from collections.abc import Iterator, Sequence

import jax
import numpy as np

from switchx.data import Vocabulary
from switchx.inference.beam import beam_search
from switchx.inference.blanks import Answer, answer, to_tokens
from switchx.inference.config import GREEDY, DecodingConfig
from switchx.inference.decoding import EOS_ID, sample
from switchx.model import Model, Params

_BUCKET = 64


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
    rows: Sequence[Sequence[int]],
    decoding: DecodingConfig,
    max_input_length: int,
    eos_id: int = EOS_ID,
) -> Iterator[list[int]]:
    """Answers to encoder inputs, in their order, a batch at a time.

    Under a mesh (`jax.set_mesh`) the batch size must be a multiple of data x expert.

    Args:
      rows: token ids, none of them 0, each at most max_input_length of them.

    Yields:
      The tokens of each answer, the end of sequence included.
    """
    for first in range(0, len(rows), decoding.batch_size):
        batch = rows[first : first + decoding.batch_size]
        token_BM = pad(batch, decoding.batch_size, max_input_length)
        row_B = np.arange(first, first + decoding.batch_size)
        answer_BL = np.asarray(_decode(model, params, token_BM, row_B, decoding, eos_id))
        for tokens in answer_BL[: len(batch)].tolist():
            yield tokens[: tokens.index(eos_id) + 1] if eos_id in tokens else tokens


def _decode(
    model: Model,
    params: Params,
    token_BM: np.ndarray,
    row_B: np.ndarray,
    decoding: DecodingConfig,
    eos_id: int,
) -> jax.Array:
    if decoding.method == "beam":
        beams, alpha = decoding.num_beams, decoding.length_penalty
        token_BPL, _ = beam_search(model, params, token_BM, decoding.length, beams, alpha, eos_id)
        return token_BPL[:, 0]
    sampling = GREEDY if decoding.method == "greedy" else decoding.sampling
    return sample(model, params, token_BM, decoding.length, sampling, decoding.seed, row_B, eos_id)


def pad(rows: Sequence[Sequence[int]], batch_size: int, max_length: int) -> np.ndarray:
    """int32 [batch_size, M] with zeros where there is nothing.

    M is the least multiple of 64 that holds every row, or max_length where that is less.
    """
    longest = max(map(len, rows))
    if longest > max_length:
        raise ValueError(f"a row of {longest} tokens, where at most {max_length} fit")
    M = min(-(-longest // _BUCKET) * _BUCKET, max_length)
    token_BM = np.zeros((batch_size, M), np.int32)
    for row, tokens in zip(token_BM, rows, strict=False):
        row[: len(tokens)] = tokens
    return token_BM
