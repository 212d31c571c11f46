"""Between our vocabularies and those of seqio, which tokenise inside TensorFlow."""

import dataclasses
import hashlib
from typing import Any

import seqio
import tensorflow_text

from switchx.data.config import DataConfig
from switchx.data.tasks import downstream, names, vocabulary_files
from switchx.data.tasks.ids import Ids
from switchx.data.tasks.masking import is_masking
from switchx.data.tasks.sentence_pieces import SentencePieces, parse_model
from switchx.data.tasks.span_corruption import as_ours, denoiser_of
from switchx.data.tasks.table_source import TableSource
from switchx.data.tasks.vocabularies import EXTRA_IDS, Bytes, Vocabulary


class OurPieces(seqio.SentencePieceVocabulary):
    """A SentencePiece model with our ids, whatever those of its file are.

    Attributes:
      text_alone: whether no text makes a sentinel: these come from an objective alone.
    """

    def __init__(self, own: Any, config: DataConfig, text_alone: bool) -> None:
        """own: seqio's vocabulary of the same file."""
        super().__init__(
            own.sentencepiece_model_file, own.extra_ids, own._normalizer_spec_overrides
        )
        self.text_alone = text_alone
        self._config = config

    @property
    def _opened(self) -> SentencePieces:
        """Read when it is needed: a task of a mixture may never be asked for."""
        return vocabulary_files.open_model(
            self.sentencepiece_model_file, self._config, self.extra_ids
        )

    @property
    def ids(self) -> Ids:
        """Our numbers of it."""
        return self._opened.ids

    @property
    def tokenizer(self) -> Any:
        return self._opened.processor

    @property
    def sp_model(self) -> bytes:
        return self._opened.with_blanks

    @property
    def tf_tokenizer(self) -> Any:
        model = self._opened.of_text if self.text_alone else self._opened.with_blanks
        if self._normalizer_spec_overrides is not None:
            model = _normalized(model, self._normalizer_spec_overrides)
        return tensorflow_text.SentencepieceTokenizer(model=model)


def _normalized(model: bytes, overrides: Any) -> bytes:
    proto = parse_model(model)
    proto.normalizer_spec.MergeFrom(overrides)
    proto.denormalizer_spec.MergeFrom(overrides)
    return bytes(proto.SerializeToString())


class TaskVocabulary(Vocabulary):
    """Whatever else a user's task brings, in seqio's own reading of text."""

    def __init__(self, vocabulary: Any) -> None:
        self._vocabulary = vocabulary
        eos, unknown = (-1 if i is None else i for i in (vocabulary.eos_id, vocabulary.unk_id))
        self.ids = Ids.as_t5(vocabulary.vocab_size, vocabulary.extra_ids, eos, unknown)
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


def ids_of(vocabulary: Any, config: DataConfig) -> Ids:
    """What the ids of a task's own seqio vocabulary are; of a public one without reading it."""
    path = getattr(vocabulary, "sentencepiece_model_file", None)
    public = {of: name for name, of in names.PUBLIC_MODELS.items()}
    if path in public:
        return Ids.as_t5(*names.PUBLIC_IDS[public[path]])
    return to_plain(vocabulary, config).ids


def with_vocabulary(task: Any, vocabulary: Any | None, config: DataConfig) -> Any:
    """The task with a vocabulary in the place of its own, or its own where that is None.

    Where spans are corrupted or tokens masked, sentinels come from there alone, and from the texts
    of our own tasks and of tables none. Another task may write them on purpose.
    """
    changed = {}
    text_alone = _takes_text_as_it_is(task)
    corrupts, steps = denoiser_of(task) is not None, task.preprocessors
    for name, feature in task.output_features.items():
        own = feature.vocabulary if vocabulary is None else vocabulary
        if type(own) is seqio.SentencePieceVocabulary:
            numbered_so = _is_t5s(own, config)
            if corrupts and not numbered_so:
                steps = [as_ours(step, task.name) for step in task.preprocessors]
            if text_alone or not numbered_so:
                own = OurPieces(own, config, text_alone)
        if own is not feature.vocabulary:
            changed[name] = dataclasses.replace(feature, vocabulary=own)
    if not changed:
        return task
    features = {**task.output_features, **changed}
    return task.replace(output_features=features, preprocessors=steps)


def _takes_text_as_it_is(task: Any) -> bool:
    makes_sentinels = denoiser_of(task) is not None or any(map(is_masking, task.preprocessors))
    if makes_sentinels or task.name in downstream.OWN:
        return True
    # t5's tasks that begin a target with a sentinel say so in their names.
    return isinstance(task.source, TableSource) and "sentinel" not in task.name


def _is_t5s(vocabulary: Any, config: DataConfig) -> bool:
    """Whether seqio's own reading of a file has our ids; of a public one it is known."""
    path = vocabulary.sentencepiece_model_file
    if path in names.PUBLIC_MODELS.values():
        return True
    ids = vocabulary_files.open_model(path, config, vocabulary.extra_ids).ids
    return ids.is_t5s and ids.eos == vocabulary.eos_id
