"""Between our vocabularies and those of seqio, which tokenise inside TensorFlow."""

import dataclasses
import functools
import hashlib
from typing import Any

import seqio
import tensorflow_text

from switchx.data.config import DataConfig
from switchx.data.tasks import names, vocabulary_files
from switchx.data.tasks.span_corruption import span_settings
from switchx.data.tasks.vocabularies import EXTRA_IDS, Bytes, Vocabulary, parse_model, text_only


class TextPieces(seqio.SentencePieceVocabulary):
    """A SentencePiece vocabulary whose sentinels come from an objective and never from text."""

    @property
    def tf_tokenizer(self) -> Any:
        return tensorflow_text.SentencepieceTokenizer(model=_text_only(self.sp_model))


@functools.lru_cache(maxsize=4)
def _text_only(model: bytes) -> bytes:
    return bytes(text_only(parse_model(model, "")).SerializeToString())


class TaskVocabulary(Vocabulary):
    """Whatever else a user's task brings, in seqio's own reading of text."""

    def __init__(self, vocabulary: Any) -> None:
        self._vocabulary = vocabulary
        self.size = vocabulary.vocab_size
        self.sentinels = vocabulary.extra_ids
        self.eos_id = -1 if vocabulary.eos_id is None else vocabulary.eos_id
        identity = f"{type(vocabulary).__name__} {vocabulary} {self.size}"
        self.digest = hashlib.sha256(identity.encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        return [int(token) for token in self._vocabulary.encode(text)]

    def encode_blanks(self, text: str) -> list[int]:
        return self.encode(text)

    def _decode(self, ids: list[int]) -> str:
        return str(self._vocabulary.decode(ids))


def from_config(config: DataConfig) -> Any:
    """Returns the seqio vocabulary that a config chooses; public ones are not read yet."""
    choice = vocabulary_files.chosen(config)
    if choice == "bytes":
        return seqio.ByteVocabulary(EXTRA_IDS)
    path = vocabulary_files.model_path(config, choice)
    if choice in names.PUBLIC_MODELS:
        return seqio.SentencePieceVocabulary(path, 0)  # these files have their sentinels
    opened = vocabulary_files.open_model(path, config)
    file = vocabulary_files.file_here(path, config)
    return seqio.SentencePieceVocabulary(file, opened.added_sentinels)


def to_plain(vocabulary: Any, config: DataConfig) -> Vocabulary:
    """Returns the plain form of a task's own seqio vocabulary."""
    if isinstance(vocabulary, seqio.ByteVocabulary):
        return Bytes(vocabulary.extra_ids)
    if isinstance(vocabulary, seqio.SentencePieceVocabulary):
        path = vocabulary.sentencepiece_model_file
        return vocabulary_files.open_model(path, config, vocabulary.extra_ids)
    return TaskVocabulary(vocabulary)


def with_vocabulary(task: Any, vocabulary: Any | None) -> Any:
    """The task with a vocabulary in the place of its own, or its own where that is None.

    Where spans are corrupted, sentinels come from there alone. Another task may write them into
    its text on purpose.
    """
    changed = {}
    for name, feature in task.output_features.items():
        own = feature.vocabulary if vocabulary is None else vocabulary
        if type(own) is seqio.SentencePieceVocabulary and span_settings(task) is not None:
            own = _as_text_pieces(own)
        if own is not feature.vocabulary:
            changed[name] = dataclasses.replace(feature, vocabulary=own)
    if not changed:
        return task
    return task.replace(output_features={**task.output_features, **changed})


def _as_text_pieces(vocabulary: Any) -> TextPieces:
    pieces = TextPieces.__new__(TextPieces)
    pieces.__setstate__(vocabulary.__getstate__())
    return pieces
