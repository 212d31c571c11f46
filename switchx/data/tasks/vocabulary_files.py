"""Opens the vocabulary that a config names, once in a process, without TensorFlow."""

import functools
import hashlib
import os

from switchx import storage
from switchx.data.config import DataConfig
from switchx.data.tasks import corpus, names, recipes
from switchx.data.tasks.ids import Ids
from switchx.data.tasks.sentence_pieces import SentencePieces
from switchx.data.tasks.vocabularies import Bytes, Vocabulary
from switchx.data.tensorflow_loader import load_tensorflow, within_limit


def chosen(config: DataConfig) -> str:
    """VOCABULARY, with 'default' resolved for the tasks of this package."""
    if config.vocabulary == "default":
        found = {names.VOCABULARIES.get(name, "default") for name in config.names}
        return found.pop() if len(found) == 1 else "default"
    return config.vocabulary


def open_chosen(config: DataConfig) -> Vocabulary | None:
    """Returns the vocabulary of a config; None where only its task knows which it is.

    Raises:
      UserError: it is not there or cannot be read.
    """
    choice = chosen(config)
    if choice == "default":
        return None
    return Bytes() if choice == "bytes" else open_model(model_path(config, choice), config)


def known_ids(config: DataConfig, fetched: bool = False) -> Ids | None:
    """The ids of the vocabulary that a config names; None where it has to be built or asked for.

    Args:
      fetched: whether one at a URL is read, too.

    Raises:
      UserError: it cannot be read.
    """
    choice = chosen(config)
    if choice in names.PUBLIC_IDS:
        return Ids.as_t5(*names.PUBLIC_IDS[choice])
    vocabulary = known(config, fetched)
    return None if vocabulary is None else vocabulary.ids


def known(config: DataConfig, fetched: bool = False) -> Vocabulary | None:
    """The vocabulary itself, as `known_ids`; of public ones None as well."""
    here = fetched or not storage.is_remote(chosen(config))
    return open_chosen(config) if here and opens_at_once(config) else None


def vocabulary_model(config: DataConfig) -> bytes | None:
    """The SentencePiece model of a config's vocabulary, where it is one and need not be built.

    Raises:
      UserError: it cannot be read.
    """
    choice = chosen(config)
    if choice == "bytes" or not opens_at_once(config):
        return None
    path = model_path(config, choice)
    return _read(path, _version(path), setting(config))


def opens_at_once(config: DataConfig) -> bool:
    """Whether a config's vocabulary needs no TensorFlow, and nothing to be built."""
    choice = chosen(config)
    if choice in recipes.RECIPES:
        recipe = recipes.RECIPES[choice]
        return corpus.locate(config.cache_path, recipe=recipe).vocabulary_path.is_file()
    return choice != "default" and choice not in names.PUBLIC_MODELS


def open_model(path: str, config: DataConfig, extra_ids: int | None = None) -> SentencePieces:
    """A SentencePiece file as a vocabulary; `extra_ids` sentinels where the caller knows."""
    return _opened(path, _version(path), extra_ids, setting(config))


def file_here(path: str, config: DataConfig) -> str:
    """A file of this machine with the same model: of seqio, which reads it, URLs are not known.

    Raises:
      UserError: it cannot be read.
    """
    if not storage.is_remote(path) or path in names.PUBLIC_MODELS.values():
        return path
    model = _read(path, None, setting(config))
    here = config.cache_path / "vocabularies" / f"{hashlib.sha256(model).hexdigest()}.model"
    if not here.is_file():
        storage.write_whole(here, model)
    return str(here)


@functools.lru_cache(maxsize=16)
def _opened(path: str, version: object, extra_ids: int | None, setting: str) -> SentencePieces:
    return SentencePieces(_read(path, version, setting), extra_ids, name=path)


def _version(path: str) -> object:
    """Of a file on this machine: another is another vocabulary."""
    stat = os.stat(path) if os.path.isfile(path) else None
    return (stat.st_size, stat.st_mtime_ns) if stat else None


@functools.lru_cache(maxsize=4)
def _read(path: str, version: object, setting: str) -> bytes:
    del version
    if path not in names.PUBLIC_MODELS.values():
        return storage.read_bytes(storage.as_path(path, "VOCABULARY"), setting)
    # As seqio reads it next: TensorFlow needs no account and no package of its own for these.
    gfile = load_tensorflow().io.gfile
    return within_limit(lambda: bytes(gfile.GFile(path, "rb").read()), path, setting)


def model_path(config: DataConfig, choice: str) -> str:
    """The SentencePiece file of a choice; builds an embedded corpus where it is its vocabulary."""
    if choice in names.PUBLIC_MODELS:
        return names.PUBLIC_MODELS[choice]
    if choice in recipes.RECIPES:
        recipe = recipes.RECIPES[choice]
        return str(corpus.ensure(config.cache_path, recipe=recipe).vocabulary_path)
    return storage.expanded(choice)


def setting(config: DataConfig) -> str:
    """What led to a vocabulary, as errors name it."""
    return f"VOCABULARY={config.vocabulary!r}"
