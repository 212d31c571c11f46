"""The seqio tasks of this package: T5's span corruption over three kinds of text."""

import functools
from typing import Any

import seqio
import tensorflow as tf
from t5.data import preprocessors

from switchx.data import corpus
from switchx.data.config import DataConfig
from switchx.data.json_lines import JsonLinesSource
from switchx.data.vocabularies import EXTRA_IDS
from switchx.data.vocabulary_choice import T5_MODEL

PYTHON_DOCS = "python_docs_span_corruption"
C4_TFDS = "c4_v310_span_corruption"
C4_JSON = "c4_json_span_corruption"
SHUFFLED_ROWS = 1_000  # rows of a batch are drawn from so many, on top of the order of the files
# Text to token ids, then T5's objective: 15 % of the tokens in spans of 3 on average, rows filled
# by concatenating documents, an end of sequence on both sides.
SPAN_CORRUPTION = (
    functools.partial(preprocessors.rekey, key_map={"targets": "text"}),
    functools.partial(seqio.preprocessors.tokenize, copy_pretokenized=False),
    preprocessors.span_corruption,
    seqio.preprocessors.append_eos_after_trim,
)
_TRACED_AS_WRITTEN = frozenset(
    (
        preprocessors.rekey,
        preprocessors.span_corruption,
        seqio.preprocessors.append_eos_after_trim,
        seqio.preprocessors.rekey,
        seqio.preprocessors.tokenize,
    )
)


class PythonDocsSource(seqio.FileDataSource):
    """Yields {'text': string}, the documents of the embedded corpus."""

    def __init__(self, config: DataConfig) -> None:
        self._cache = config.cache_path
        where = corpus.locate(self._cache)
        super().__init__(
            read_file_fn=_read_documents,
            split_to_filepattern={"train": where.train_glob, "validation": where.validation_glob},
        )

    def ensure(self) -> None:
        """Builds the corpus where the cache has none yet."""
        corpus.ensure(self._cache)


def register(config: DataConfig) -> None:
    """Registers the tasks of this package with seqio, reading from where this config says.

    Called again with another config, they are replaced: a mixture of the user's can name them.
    """
    docs_model = str(corpus.locate(config.cache_path).vocabulary_path)
    docs_vocabulary = seqio.SentencePieceVocabulary(docs_model, EXTRA_IDS)
    t5_vocabulary = seqio.SentencePieceVocabulary(T5_MODEL, 0)  # this file has its sentinels
    globs = {"train": config.json_train_glob, "validation": config.json_validation_glob}
    json_source = JsonLinesSource(
        {split: glob for split, glob in globs.items() if glob}, config.max_broken_share
    )
    _replace(PYTHON_DOCS, PythonDocsSource(config), docs_vocabulary)
    _replace(C4_TFDS, seqio.TfdsDataSource(tfds_name="c4/en:3.1.0"), t5_vocabulary)
    _replace(C4_JSON, json_source, t5_vocabulary)


def needs_autograph(provider: Any) -> bool:
    """Whether TensorFlow has to translate a provider's Python control flow before tracing it.

    The steps of span corruption branch on nothing that is a tensor, and translating them takes
    most of the time until the first batch.
    """
    return any(
        getattr(step, "func", step) not in _TRACED_AS_WRITTEN
        and not isinstance(step, seqio.CacheDatasetPlaceholder)
        for task in seqio.get_subtasks(provider)
        for step in task.preprocessors
    )


def span_settings(task: Any) -> tuple[float, float] | None:
    """Noise density and mean span length of a task's span corruption, None where it has none."""
    for step in task.preprocessors:
        if getattr(step, "func", step) is preprocessors.span_corruption:
            chosen = getattr(step, "keywords", {})
            return chosen.get("noise_density", 0.15), chosen.get("mean_noise_span_length", 3.0)
    return None


def span_lengths(inputs_length: int, density: float, mean_span: float) -> tuple[int, int]:
    """Number of spans and length of the targets that fill rows of inputs_length tokens."""
    tokens, targets = preprocessors.random_spans_helper(
        inputs_length=inputs_length,
        noise_density=density,
        mean_noise_span_length=mean_span,
        extra_tokens_per_span_inputs=1,
        extra_tokens_per_span_targets=1,
    )
    return round(round(tokens * density) / mean_span), targets


def _replace(name: str, source: seqio.DataSource, vocabulary: seqio.Vocabulary) -> None:
    if name in seqio.TaskRegistry.names():
        seqio.TaskRegistry.remove(name)
    feature = seqio.Feature(vocabulary=vocabulary, add_eos=True)
    seqio.TaskRegistry.add(
        name,
        source=source,
        preprocessors=list(SPAN_CORRUPTION),
        output_features={"inputs": feature, "targets": feature},
        shuffle_buffer_size=SHUFFLED_ROWS,
    )


def _read_documents(path: tf.Tensor) -> tf.data.Dataset:
    return tf.data.TextLineDataset(path).map(lambda line: {"text": line})
