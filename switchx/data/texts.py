"""A file of plain text as evaluation batches: cut into rows, corrupted as in pretraining."""

import codecs
import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from switchx import storage
from switchx.data.batches import Batch
from switchx.data.config import DataConfig
from switchx.data.masked import masked
from switchx.data.prepared import counter_random
from switchx.data.prepared.rows import after_mode, empty_batch, put_rows
from switchx.data.prepared.spans import SpanCorruption
from switchx.data.tasks.objectives import denoisers_of
from switchx.data.tasks.vocabularies import Vocabulary
from switchx.errors import UserError

MOST_BYTES = 2**18  # of a text that are read; of a longer one as many, in even parts of it
_PARTS = 64
_BEGINS = range(0x80, 0xC0)  # a byte of UTF-8 that is not the first of its character


class Text(NamedTuple):
    """A text, or even parts of one.

    Attributes:
      name: of its file.
      parts: one behind the other; the whole text where it is no longer than MOST_BYTES.
      bytes_read, bytes_in_file: how much of it they are.
    """

    name: str
    parts: list[str]
    bytes_read: int
    bytes_in_file: int


def read_text(path: storage.AnyPath, setting: str) -> Text:
    """Reads a text, wherever it lies; of a long one parts that are spread evenly over it.

    Raises:
      UserError: it cannot be read, is not UTF-8, or holds nothing but blanks.
    """
    place = storage.as_path(path, setting)
    size = storage.size_of(place, setting) or 0
    if size <= MOST_BYTES:
        parts = [storage.read_text(place, setting)]
    else:
        parts = [_decoded(part, place, setting) for part in _spread(place, size, setting)]
    if not "".join(parts).strip():
        raise UserError(f"{setting}={str(path)!r} holds no text: give a file with some.")
    name = os.path.basename(os.fspath(path).rstrip("/"))
    return Text(name, parts, sum(len(part.encode()) for part in parts), size)


def _spread(path: storage.AnyPath, size: int, setting: str) -> Iterator[bytes]:
    length = MOST_BYTES // _PARTS
    with storage.open_to_seek(path, setting) as file, storage.read_errors(path, setting):
        for start in np.linspace(0, size - length, _PARTS).astype(int).tolist():
            file.seek(start)
            yield file.read(length)


def _decoded(part: bytes, path: storage.AnyPath, setting: str) -> str:
    """A part as text; what was cut through at either end is left out."""
    begin = next((n for n, byte in enumerate(part[:4]) if byte not in _BEGINS), 0)
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(part[begin:])
    except UnicodeDecodeError:
        return storage.as_text(part[begin : begin + 1] + b"\xff", path, setting)  # which says so


def text_batches(text: Text, config: DataConfig, vocabulary: Vocabulary) -> list[Batch]:
    """The batches of a text, of the shapes of evaluation's, spans cut out as in pretraining.

    Each row is corrupted by its number alone. The rows are as long as inputs and targets hold; a
    run whose targets are short has shorter ones.

    Raises:
      UserError: TASK_FEATURE_LENGTHS has no room for a row with a span.
    """
    inputs = config.feature_lengths["inputs"]
    # Of a mixture of denoisers the first, which is T5's own.
    density, mean_span, mode = denoisers_of(
        config.mixture_or_task_name, inputs, config.mode_tokens
    )[0]
    mode_ids = vocabulary.encode(mode)
    mean_span = 1.0 if config.encoder_alone else mean_span  # each mask stands for one token
    corruption = SpanCorruption(density, mean_span, *vocabulary.ids.sentinels.row)
    length = _row_length(corruption, inputs - len(mode_ids), config, vocabulary)
    rows = [
        tokens[start : start + length]
        for tokens in map(vocabulary.encode, text.parts)
        for start in range(0, len(tokens), length)
    ]
    size = config.rows_per_eval_batch
    return [
        _batch(rows[first : first + size], first, corruption, mode_ids, config, vocabulary)
        for first in range(0, len(rows), size)
    ]


def _row_length(
    corruption: SpanCorruption, inputs: int, config: DataConfig, vocabulary: Vocabulary
) -> int:
    """Tokens of the longest row that is at most `inputs` long once corrupted."""
    lengths = config.feature_lengths
    longest = inputs + lengths["targets"]
    for length in range(longest, 1, -1):
        noise, spans = corruption.counts(length)
        fits = length - noise + spans < inputs and noise + spans < lengths["targets"]
        if config.encoder_alone:
            fits, spans = length < inputs, 1
        if fits and spans <= vocabulary.sentinels:
            return length
    raise UserError(
        f"TASK_FEATURE_LENGTHS={dict(lengths)} has no room for a row of text with a span cut out: "
        "give at least 3 of either, or name a task in the place of a text."
    )


def _batch(
    rows: list[list[int]],
    first: int,
    corruption: SpanCorruption,
    mode_ids: list[int],
    config: DataConfig,
    vocabulary: Vocabulary,
) -> Batch:
    batch = empty_batch(config.feature_lengths, config.rows_per_eval_batch, config.pack)
    eos = np.array([[vocabulary.eos_id]], np.int32)
    for n, tokens in enumerate(rows):
        token_RN, key_R = np.array([tokens], np.int32), counter_random.key_of(first + n)
        if config.encoder_alone:
            is_masked_RN = corruption.noise_mask(key_R, len(tokens))
            pair = np.where(is_masked_RN, corruption.first_sentinel, token_RN), token_RN
        else:
            inputs_RI, targets_RT = corruption.corrupt(token_RN, key_R)
            pair = after_mode(inputs_RI, mode_ids), targets_RT
        ended = (np.concatenate([part, eos], axis=1) for part in pair)
        put_rows(batch, slice(n, n + 1), *ended)
    return masked(batch, corruption.first_sentinel, config) if config.encoder_alone else batch
