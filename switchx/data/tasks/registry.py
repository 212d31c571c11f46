"""The seqio tasks of this package: T5's span corruption over the kinds of text there are, and one
of its own to tune a model on; from `downstream`, those that the paper is evaluated on.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import seqio
import tensorflow as tf

from switchx import storage
from switchx.data.config import DataConfig
from switchx.data.tasks import (
    corpus,
    downstream,
    masking,
    names,
    objectives,
    prepositions,
    recipes,
    sources,
    span_corruption,
    task_files,
    text_files,
)
from switchx.data.tasks.objectives import Denoiser, denoisers_of
from switchx.data.tasks.text_source import TextSource
from switchx.data.tasks.vocabularies import EXTRA_IDS

# Text to token ids, then T5's objective: 15 % of the tokens in spans of 3 on average, rows filled
# by concatenating documents, an end of sequence on both sides.
SPAN_CORRUPTION = (
    functools.partial(seqio.preprocessors.rekey, key_map={"targets": "text"}),
    functools.partial(seqio.preprocessors.tokenize, copy_pretokenized=False),
    span_corruption.span_corruption,
    seqio.preprocessors.append_eos_after_trim,
)
# The same with 15 % of the tokens masked, for an encoder alone.
MASKED = (*SPAN_CORRUPTION[:2], masking.mask_tokens, SPAN_CORRUPTION[3])
# Text to pairs of texts, to token ids.
PREPOSITIONS = (
    prepositions.blank_prepositions,
    functools.partial(seqio.preprocessors.tokenize, copy_pretokenized=False),
    seqio.preprocessors.append_eos_after_trim,
)
_TRACED_AS_WRITTEN = frozenset(
    (
        prepositions.blank_prepositions,
        seqio.preprocessors.append_eos_after_trim,
        seqio.preprocessors.rekey,
        seqio.preprocessors.tokenize,
    )
)


class EmbeddedSource(seqio.FileDataSource):
    """Yields {'text': string}, the documents of an embedded corpus."""

    def __init__(self, config: DataConfig, recipe: recipes.Recipe, shard: str = "*") -> None:
        """`shard` says which of the training files are read: "00000-*" is the first."""
        self._cache, self._recipe = config.cache_path, recipe
        where = corpus.locate(self._cache, recipe=recipe)
        train = where.train_glob.replace("*", shard)
        super().__init__(
            read_file_fn=_read_documents,
            split_to_filepattern={"train": train, "validation": where.validation_glob},
        )

    def ensure(self) -> None:
        """Builds the corpus where the cache has none yet."""
        corpus.ensure(self._cache, recipe=self._recipe)


def register(config: DataConfig) -> None:
    """Registers the tasks of this package with seqio, reading from where this config says.

    Called again with another config, they are replaced: a mixture of the user's can name them.
    """
    t5_vocabulary = _public_vocabulary("t5")
    for recipe in recipes.RECIPES.values():
        model = str(corpus.locate(config.cache_path, recipe=recipe).vocabulary_path)
        vocabulary = seqio.SentencePieceVocabulary(model, EXTRA_IDS)
        _replace(recipe.task, EmbeddedSource(config, recipe), vocabulary)
        if recipe is recipes.DOCS:
            _register_prepositions(EmbeddedSource(config, recipe, "00000-*"), vocabulary)
    for name, dataset in names.ENGLISH_TFDS.items():
        _replace(name, seqio.TfdsDataSource(tfds_name=dataset), t5_vocabulary)
    for name in (names.TEXT, names.C4_JSON):
        _replace(name, _text_source(config, name), t5_vocabulary)
    for name, of in names.MASKED.items():
        task = seqio.TaskRegistry.get(of)
        _replace(name, task.source, task.output_features["targets"].vocabulary, MASKED)
    _register_ul2(config)
    downstream.register(t5_vocabulary, config)
    _register_mc4(config)


def _register_ul2(config: DataConfig) -> None:
    """Registers UL2's mixtures: the same text corrupted in each of its ways, all as often."""
    length = config.feature_lengths["inputs"]
    for mixture, tasks in names.UL2_TASKS.items():
        text = seqio.TaskRegistry.get(names.UL2[mixture])
        denoisers = denoisers_of(mixture, length, config.mode_tokens)
        for name, denoiser in zip(tasks, denoisers, strict=True):
            # One that reads files of text keeps its place in them.
            source = _text_source(config, name) if name in names.TEXT_TASKS else text.source
            vocabulary = text.output_features["targets"].vocabulary
            _replace(name, source, vocabulary, _steps(denoiser))
        _replace_mixture(mixture, [(task, 1.0) for task in tasks])


def _register_prepositions(source: EmbeddedSource, vocabulary: seqio.Vocabulary) -> None:
    scored = {"postprocess_fn": prepositions.word_of, "metric_fns": [prepositions.accuracy]}
    _replace(names.PREPOSITIONS, source, vocabulary, PREPOSITIONS, **scored)


def _public_vocabulary(name: str) -> seqio.Vocabulary:
    return seqio.SentencePieceVocabulary(names.PUBLIC_MODELS[name], 0)  # it has its sentinels


def _register_mc4(config: DataConfig) -> None:
    """Registers every language, which takes milliseconds, and the mixture that is asked for."""
    vocabulary = _public_vocabulary("mt5")
    for language in names.LANGUAGES:
        splits = {"train": language, "validation": f"{language}-validation"}
        tfds_source = seqio.TfdsDataSource(tfds_name=names.MC4_TFDS, splits=splits)
        json_source = _text_source(config, names.json_task(language))
        _replace(names.tfds_task(language), tfds_source, vocabulary)
        _replace(names.json_task(language), json_source, vocabulary)
    if names.MC4_TFDS_MIXTURE in config.names:
        _replace_mc4(names.MC4_TFDS_MIXTURE, _tfds_documents(config))
    if names.MC4_JSON_MIXTURE in config.names:
        _replace_mc4(names.MC4_JSON_MIXTURE, _json_bytes())


def _text_source(config: DataConfig, name: str) -> TextSource:
    language = names.TEXT_TASKS[name]
    given = {split: of.of(language) for split, of in text_files.given(config, name).items()}
    # A mixture of all languages has 107 files open as it is.
    cycle_length = {"cycle_length": 1} if language else {}
    return TextSource(given, config.text_field, config.max_broken_share, **cycle_length)


def _tfds_documents(config: DataConfig) -> dict[str, int]:
    """The training documents of each mC4 task that the prepared dataset has a split for."""
    source = seqio.TaskRegistry.get(names.tfds_task(names.LANGUAGES[0])).source
    if config.tfds_data_dir:
        source.tfds_dataset.override_data_dir(storage.expanded(config.tfds_data_dir))
    info = sources.prepared_info(source)
    splits = info.splits if info else {}
    return {
        names.tfds_task(language): splits[language].num_examples
        for language in names.LANGUAGES
        if language in splits
    }


def _json_bytes() -> dict[str, int]:
    """The bytes of the training files of each mC4 task that has some, as they are listed."""
    sizes = {}
    for name in map(names.json_task, names.LANGUAGES):
        source = seqio.TaskRegistry.get(name).source
        if "train" in source.given and (found := source.sizes("train")):
            sizes[name] = sum(found.values())
    return sizes


def _replace_mc4(name: str, sizes: dict[str, int]) -> None:
    """Registers the mixture of the tasks that have data; of all where none has, to say so."""
    if 0 < len(sizes) < len(names.LANGUAGES):
        task_files.say_once(
            f"{name} has data of {len(sizes)} of {len(names.LANGUAGES)} tasks: {', '.join(sizes)}"
        )
    if not sizes:
        family = names.tfds_task if name == names.MC4_TFDS_MIXTURE else names.json_task
        sizes = dict.fromkeys(map(family, names.LANGUAGES), 1)
    _replace_mixture(name, [(task, float(n) ** names.ALPHA) for task, n in sizes.items()])


def _replace_mixture(name: str, rates: Sequence[tuple[str, float]]) -> None:
    if name in seqio.MixtureRegistry.names():
        seqio.MixtureRegistry.remove(name)
    seqio.MixtureRegistry.add(name, rates)


def needs_autograph(provider: Any) -> bool:
    """Whether TensorFlow has to translate a provider's Python control flow before tracing it.

    The steps of span corruption branch on nothing that is a tensor, and translating them takes
    most of the time until the first batch.
    """
    return any(
        getattr(step, "func", step) not in _TRACED_AS_WRITTEN
        and not span_corruption.is_span_corruption(step)
        and not masking.is_masking(step)
        and not isinstance(step, seqio.CacheDatasetPlaceholder)
        for task in seqio.get_subtasks(provider)
        for step in task.preprocessors
    )


def _steps(denoiser: Denoiser) -> list[Callable[..., Any]]:
    if denoiser == Denoiser():
        return list(SPAN_CORRUPTION)
    corruption = functools.partial(
        span_corruption.span_corruption,
        noise_density=denoiser.density,
        mean_noise_span_length=denoiser.mean_span,
        mode=denoiser.mode,
    )
    return [
        corruption if step is span_corruption.span_corruption else step for step in SPAN_CORRUPTION
    ]


def _replace(
    name: str,
    source: seqio.DataSource,
    vocabulary: seqio.Vocabulary,
    preprocessors: Sequence[Callable[..., Any]] | None = None,
    **scored: Any,
) -> None:
    if name in seqio.TaskRegistry.names():
        seqio.TaskRegistry.remove(name)
    if preprocessors is None:
        (denoiser,) = denoisers_of(name, 0)
        preprocessors = _steps(denoiser)
    feature = seqio.Feature(vocabulary=vocabulary, add_eos=True)
    seqio.TaskRegistry.add(
        name,
        source=source,
        preprocessors=list(preprocessors),
        output_features={"inputs": feature, "targets": feature},
        shuffle_buffer_size=objectives.SHUFFLED_ROWS,
        **scored,
    )


def _read_documents(path: tf.Tensor) -> tf.data.Dataset:
    return tf.data.TextLineDataset(path).map(lambda line: {"text": line})
