"""Which vocabulary the user's VOCABULARY means, for plain Python and for seqio."""

import functools
from typing import Any

from switchx import storage
from switchx.data.config import DataConfig
from switchx.data.tasks import corpus, mc4
from switchx.data.tasks.vocabularies import (
    EXTRA_IDS,
    Bytes,
    SentencePieces,
    Vocabulary,
    parse_model,
    sentinels_to_add,
)
from switchx.data.tensorflow_loader import load_tensorflow, within_limit

T5_MODEL = "gs://t5-data/vocabs/cc_all.32000.100extra/sentencepiece.model"
MT5_MODEL = "gs://t5-data/vocabs/mc4.250000.100extra/sentencepiece.model"
_PUBLIC = {"t5": T5_MODEL, "mt5": MT5_MODEL}
# The tasks of this package: their vocabulary is known without asking seqio.
DEFAULTS = {
    "python_docs_span_corruption": "python_docs",
    "c4_v310_span_corruption": "t5",
    "c4_realnewslike_span_corruption": "t5",
    "c4_webtextlike_span_corruption": "t5",
    "c4_json_span_corruption": "t5",
    **dict.fromkeys(mc4.NAMES, "mt5"),
}
SELF_CONTAINED = ("python_docs_span_corruption",)  # this package makes their data: it is there


def chosen(config: DataConfig) -> str:
    """VOCABULARY, with 'default' resolved for the tasks of this package."""
    if config.vocabulary == "default":
        return DEFAULTS.get(config.mixture_or_task_name, "default")
    return config.vocabulary


def open_vocabulary(config: DataConfig, provider: Any = None) -> Vocabulary:
    """Returns the vocabulary of a config; `provider` is its seqio task where already looked up.

    Raises:
      UserError: there is none, or it cannot be read.
    """
    choice = chosen(config)
    if choice == "default":
        from switchx.data.tasks import lookup

        provider = provider or lookup.find_provider(config)
        return _of_seqio(provider.output_features["targets"].vocabulary, config)
    if choice == "bytes":
        return Bytes()
    path = model_path(config, choice)
    return SentencePieces(_model_bytes(path, _setting(config)), name=path)


def seqio_choice(config: DataConfig, choice: str) -> Any:
    """Returns the seqio vocabulary of a choice but 'default'; public ones are not read yet."""
    import seqio

    if choice == "bytes":
        return seqio.ByteVocabulary(EXTRA_IDS)
    path = model_path(config, choice)
    if choice in _PUBLIC:
        return seqio.SentencePieceVocabulary(path, 0)  # these files have their sentinels
    return seqio.SentencePieceVocabulary(path, _sentinels_to_add(path, _setting(config)))


def _of_seqio(vocabulary: Any, config: DataConfig) -> Vocabulary:
    """Returns the plain form of a task's own seqio vocabulary."""
    import seqio

    if isinstance(vocabulary, seqio.ByteVocabulary):
        return Bytes(vocabulary.extra_ids)
    if isinstance(vocabulary, seqio.SentencePieceVocabulary):
        path = vocabulary.sentencepiece_model_file
        model = _model_bytes(path, _setting(config))
        return SentencePieces(model, extra_ids=vocabulary.extra_ids, name=path)
    return _OtherSeqio(vocabulary)


def model_path(config: DataConfig, choice: str) -> str:
    """The SentencePiece file of a choice; builds the embedded corpus where it is its vocabulary."""
    if choice in _PUBLIC:
        return _PUBLIC[choice]
    if choice == "python_docs":
        return str(corpus.ensure(config.cache_path).vocabulary_path)
    return choice


@functools.lru_cache(maxsize=16)
def _sentinels_to_add(path: str, setting: str) -> int:
    return sentinels_to_add(parse_model(_model_bytes(path, setting), path))


def _model_bytes(path: str, setting: str) -> bytes:
    if not path.startswith("gs://"):
        return storage.read_bytes(path, setting)
    # As seqio reads it next: TensorFlow needs no package of its own for these, and retries.
    gfile = load_tensorflow().io.gfile
    return within_limit(lambda: gfile.GFile(path, "rb").read(), path, setting)


def _setting(config: DataConfig) -> str:
    return f"VOCABULARY {config.vocabulary!r}"


class _OtherSeqio(Vocabulary):
    """Whatever else a user's task brings, in seqio's own reading of text."""

    def __init__(self, vocabulary: Any) -> None:
        import hashlib

        self._vocabulary = vocabulary
        self.size = vocabulary.vocab_size
        self.eos_id = -1 if vocabulary.eos_id is None else vocabulary.eos_id
        identity = f"{type(vocabulary).__name__} {vocabulary} {self.size}"
        self.fingerprint = hashlib.sha256(identity.encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        return [int(token) for token in self._vocabulary.encode(text)]

    def _decode(self, ids: list[int]) -> str:
        return str(self._vocabulary.decode(ids))
