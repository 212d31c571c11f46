"""The tokens of an embedded corpus, made by TensorFlow once and kept beside its text.

TensorFlow Text and the package sentencepiece cut a text in two ways that are equally probable each
as its own rounding has it: only the former's is what seqio's pipelines read.
"""

import contextlib
import dataclasses
import functools
import io
import itertools
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from switchx import storage
from switchx.data.config import FEATURES, SPLITS, DataConfig
from switchx.data.tasks import corpus, recipes, vocabulary_files
from switchx.data.tasks.vocabularies import Vocabulary
from switchx.data.tensorflow_loader import load_tensorflow
from switchx.errors import RunError
from switchx.terminal import remark


@dataclasses.dataclass(frozen=True)
class Documents:
    """Those of a split, numbered file by file.

    Attributes:
      of_files: how many each file has.
      ends: of each among the tokens, int64.
      tokens: of all, uint16.
    """

    of_files: np.ndarray
    ends: np.ndarray
    tokens: np.ndarray

    def __getitem__(self, number: int) -> np.ndarray:
        """A document's tokens."""
        return self.tokens[self.ends[number - 1] if number else 0 : self.ends[number]]

    def of(self, files: Sequence[int]) -> "Documents":
        """The documents of some of the files alone, in the files' order."""
        firsts = np.cumsum(self.of_files) - self.of_files
        numbers = [range(firsts[file], firsts[file] + self.of_files[file]) for file in files]
        own = [self[number] for number in itertools.chain(*numbers)]
        return _joined(self.of_files[list(files)], own)


def documents(config: DataConfig, recipe: recipes.Recipe, split: str) -> Documents:
    """The documents of a split of a corpus, in the vocabulary of a config.

    Raises:
      UserError: they cannot be read or built.
    """
    folder = corpus.ensure(config.cache_path, recipe=recipe).folder
    digest = vocabulary(config).digest[:16]
    asked = (config.vocabulary, config.cache_dir)
    return _kept(folder / f"tokens.{digest}.npz", recipe.task, *asked)[split]


def vocabulary(config: DataConfig) -> Vocabulary:
    """That of a config which names one of an embedded corpus, or leaves it to the task."""
    found = vocabulary_files.open_chosen(config)
    assert found is not None
    return found


@functools.lru_cache(maxsize=2)
def _kept(path: Path, task: str, vocabulary: str, cache_dir: str | None) -> dict[str, Documents]:
    """Of each split. Of several processes that make them at once each has the same."""
    found = _read(path)
    if found is None:
        began = time.monotonic()
        found = _tokenized(task, vocabulary, cache_dir)
        with contextlib.suppress(RunError):  # of a cache that is not to be written
            storage.write_whole(path, _content(found))
        count, seconds = sum(len(of.tokens) for of in found.values()), time.monotonic() - began
        remark(f"{count:,} tokens in {seconds:.0f} s (once): {path}")
    return found


def _tokenized(task: str, vocabulary: str, cache_dir: str | None) -> dict[str, Documents]:
    tf = load_tensorflow()
    from switchx.data.tasks import lookup

    lengths = dict.fromkeys(FEATURES, 2)
    config = DataConfig(task, lengths, 1, vocabulary=vocabulary, cache_dir=cache_dir)
    provider = lookup.find_provider(config)
    encode = provider.output_features["targets"].vocabulary.encode_tf
    encode = tf.autograph.experimental.do_not_convert(encode)
    found = {}
    for split in SPLITS:
        files = [
            storage.read_bytes(storage.as_path(name, "CACHE_DIR"), "CACHE_DIR").splitlines()
            for name in provider.source.list_shards(split)
        ]
        lines = tf.data.Dataset.from_tensor_slices(list(itertools.chain(*files)))
        tokens = [x.numpy() for x in lines.map(encode, tf.data.AUTOTUNE)]
        found[split] = _joined(np.array(list(map(len, files))), tokens)
    return found


def _joined(of_files: np.ndarray, tokens: Sequence[np.ndarray]) -> Documents:
    ends = np.cumsum(list(map(len, tokens)), dtype=np.int64)
    return Documents(of_files, ends, np.concatenate(tokens).astype(np.uint16))


def _content(found: Mapping[str, Documents]) -> bytes:
    arrays = {
        f"{split}.{name}": array
        for split, of in found.items()
        for name, array in dataclasses.asdict(of).items()
    }
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def _read(path: Path) -> dict[str, Documents] | None:
    """What a file holds; None where it is missing or damaged."""
    content = storage.read_if_there(path, "CACHE_DIR")
    if content is None:
        return None
    try:
        arrays = np.load(io.BytesIO(content), allow_pickle=False)
        names = [field.name for field in dataclasses.fields(Documents)]
        return {split: Documents(*(arrays[f"{split}.{n}"] for n in names)) for split in SPLITS}
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile):
        return None
