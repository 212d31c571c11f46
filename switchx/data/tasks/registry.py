"""The seqio tasks of this package: T5's span corruption over the kinds of text there are."""

import functools
import sys
from typing import Any

import seqio
import tensorflow as tf

from switchx.data.config import DataConfig
from switchx.data.tasks import corpus, mc4, sources, span_corruption
from switchx.data.tasks.json_lines import JsonLinesSource
from switchx.data.tasks.vocabularies import EXTRA_IDS
from switchx.data.tasks.vocabulary_choice import MT5_MODEL, T5_MODEL

PYTHON_DOCS = "python_docs_span_corruption"
C4_TFDS = "c4_v310_span_corruption"
ENGLISH_TFDS = {
    C4_TFDS: "c4/en:3.1.0",
    "c4_realnewslike_span_corruption": "c4/realnewslike:3.1.0",
    "c4_webtextlike_span_corruption": "c4/webtextlike:3.1.0",
}
MC4_TFDS = "c4/multilingual:3.1.0"
C4_JSON = "c4_json_span_corruption"
SHUFFLED_ROWS = 1_000  # rows of a batch are drawn from so many, on top of the order of the files
# Text to token ids, then T5's objective: 15 % of the tokens in spans of 3 on average, rows filled
# by concatenating documents, an end of sequence on both sides.
SPAN_CORRUPTION = (
    functools.partial(seqio.preprocessors.rekey, key_map={"targets": "text"}),
    functools.partial(seqio.preprocessors.tokenize, copy_pretokenized=False),
    span_corruption.span_corruption,
    seqio.preprocessors.append_eos_after_trim,
)
_TRACED_AS_WRITTEN = frozenset(
    (
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
    json_source = JsonLinesSource(_json_globs(config), config.max_broken_share)
    _replace(PYTHON_DOCS, PythonDocsSource(config), docs_vocabulary)
    for name, dataset in ENGLISH_TFDS.items():
        _replace(name, seqio.TfdsDataSource(tfds_name=dataset), t5_vocabulary)
    _replace(C4_JSON, json_source, t5_vocabulary)
    _register_mc4(config)


def _json_globs(config: DataConfig) -> dict[str, str]:
    globs = {"train": config.json_train_glob, "validation": config.json_validation_glob}
    return {split: glob for split, glob in globs.items() if glob}


def _register_mc4(config: DataConfig) -> None:
    """Registers every language, which takes milliseconds, and the mixture that is asked for."""
    vocabulary = seqio.SentencePieceVocabulary(MT5_MODEL, 0)  # this file has its sentinels
    for language in mc4.ALL:
        splits = {"train": language, "validation": f"{language}-validation"}
        tfds_source = seqio.TfdsDataSource(tfds_name=MC4_TFDS, splits=splits)
        json_source = JsonLinesSource(
            _json_globs(config),
            config.max_broken_share,
            language=language,
            cycle_length=1,  # a mixture of all has 107 files open as it is
        )
        _replace(mc4.tfds_task(language), tfds_source, vocabulary)
        _replace(mc4.json_task(language), json_source, vocabulary)
    if config.mixture_or_task_name == mc4.TFDS_MIXTURE:
        _replace_mixture(mc4.TFDS_MIXTURE, _tfds_documents(config))
    if config.mixture_or_task_name == mc4.JSON_MIXTURE:
        _replace_mixture(mc4.JSON_MIXTURE, _json_bytes())


def _tfds_documents(config: DataConfig) -> dict[str, int]:
    """The training documents of each mC4 task that the prepared dataset has a split for."""
    source = seqio.TaskRegistry.get(mc4.tfds_task(mc4.ALL[0])).source
    if config.tfds_data_dir:
        source.tfds_dataset.override_data_dir(config.tfds_data_dir)
    info = sources.prepared_info(source)
    splits = info.splits if info else {}
    return {
        mc4.tfds_task(language): splits[language].num_examples
        for language in mc4.ALL
        if language in splits
    }


def _json_bytes() -> dict[str, int]:
    """The bytes of the training files of each mC4 task that has some, as they are listed."""
    sizes = {}
    for name in map(mc4.json_task, mc4.ALL):
        source = seqio.TaskRegistry.get(name).source
        if "train" in source.patterns and (found := source.sizes("train")):
            sizes[name] = sum(found.values())
    return sizes


def _replace_mixture(name: str, sizes: dict[str, int]) -> None:
    """Registers the mixture of the tasks that have data; of all where none has, to say so."""
    if 0 < len(sizes) < len(mc4.ALL):
        _say_once(f"{name} has data of {len(sizes)} of {len(mc4.ALL)} tasks: {', '.join(sizes)}")
    if not sizes:
        family = mc4.tfds_task if name == mc4.TFDS_MIXTURE else mc4.json_task
        sizes = dict.fromkeys(map(family, mc4.ALL), 1)
    if name in seqio.MixtureRegistry.names():
        seqio.MixtureRegistry.remove(name)
    rates = [(task, float(size) ** mc4.ALPHA) for task, size in sizes.items()]
    seqio.MixtureRegistry.add(name, rates)


@functools.cache
def _say_once(sentence: str) -> None:
    print(f"switchx: {sentence}", file=sys.stderr)


def needs_autograph(provider: Any) -> bool:
    """Whether TensorFlow has to translate a provider's Python control flow before tracing it.

    The steps of span corruption branch on nothing that is a tensor, and translating them takes
    most of the time until the first batch.
    """
    return any(
        getattr(step, "func", step) not in _TRACED_AS_WRITTEN
        and not span_corruption.is_span_corruption(step)
        and not isinstance(step, seqio.CacheDatasetPlaceholder)
        for task in seqio.get_subtasks(provider)
        for step in task.preprocessors
    )


def span_settings(task: Any) -> tuple[float, float] | None:
    """Noise density and mean span length of a task's span corruption, None where it has none."""
    for step in task.preprocessors:
        if span_corruption.is_span_corruption(step):
            chosen = getattr(step, "keywords", {})
            return (
                chosen.get("noise_density", span_corruption.NOISE_DENSITY),
                chosen.get("mean_noise_span_length", span_corruption.MEAN_SPAN),
            )
    return None


def span_lengths(inputs_length: int, density: float, mean_span: float) -> tuple[int, int]:
    """Number of spans and length of the targets that fill rows of inputs_length tokens."""
    tokens, targets = span_corruption.span_lengths(inputs_length, density, mean_span)
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
