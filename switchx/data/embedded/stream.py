"""Batches of an embedded corpus: an endless stream to train on, and a fixed pass to evaluate on."""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from switchx.data.batches import Batch, Stream, joined
from switchx.data.config import DataConfig, check_values
from switchx.data.embedded.order import Shuffled, document_order
from switchx.data.embedded.rows import Rows
from switchx.data.embedded.tokens import Documents, documents, vocabulary
from switchx.data.prepared.spans import SpanCorruption
from switchx.data.streamed import position
from switchx.data.tasks import corpus, names, objectives, recipes, vocabulary_files
from switchx.data.tasks.objectives import denoisers_of, span_lengths
from switchx.data.tensorflow_loader import load_tensorflow

_ROWS_OF_A_BLOCK = 1_024  # most of what a row costs is spent per call
_EVAL_SEED = 0
_MOST_ROWS = 2**48  # more than any run has
_FORMAT = "embedded 1"
_RECIPES = {
    recipe.task: recipe
    for recipe in recipes.RECIPES.values()
    if recipe.task in names.SPAN_CORRUPTION
}


def reads(config: DataConfig) -> bool:
    """Whether a config is of one embedded corpus as it is, and with a vocabulary of ours."""
    others = (config.mixture_tasks, config.mixture_starts, config.prepared_dir)
    files = (config.task_files, config.task_fields, config.text_files)
    return (
        config.mixture_or_task_name in _RECIPES
        and not any((*others, *files, config.pack, config.encoder_alone))
        and vocabulary_files.chosen(config) in recipes.RECIPES
    )


def ensure(config: DataConfig) -> None:
    """Builds the corpus, and with it the vocabulary, where there is none yet.

    Raises:
      UserError: it cannot be built.
    """
    corpus.ensure(config.cache_path, recipe=_RECIPES[config.mixture_or_task_name])


class EmbeddedStream:
    """The training rows of some shards of a config, without end, as `StreamedStream` has them.

    A run that an earlier version began, with TensorFlow, goes on with it: a position says so.
    """

    def __init__(self, config: DataConfig, shards: Sequence[int] = (0,)) -> None:
        """Raises UserError where the corpus or a vocabulary cannot be read or built."""
        check_values(config)
        self._config, self._numbers = config, tuple(shards)
        self._settings = position.settings_of(config, vocabulary(config).digest)
        self._shards = {shard: _Shard(config, shard) for shard in shards}
        self._other: Stream | None = None

    def __iter__(self) -> "EmbeddedStream":
        return self

    def __next__(self) -> Batch:
        if self._other is not None:
            return next(self._other)
        rows = self._config.batch_size // self._config.shards
        return joined([shard.take(rows) for shard in self._shards.values()])

    def skip(self, examples: int) -> None:
        if self._other is not None:
            return self._other.skip(examples)
        for shard in self._shards.values():
            shard.go_to(shard.standing(examples // self._config.shards))
        return None

    def state(self) -> dict[int, bytes]:
        if self._other is not None:
            return self._other.state()
        return {
            number: position_of(shard.standing(), self._settings)
            for number, shard in self._shards.items()
        }

    def restore(self, states: Mapping[int, bytes]) -> None:
        if any(states[number].startswith(b"PK") for number in self._numbers):
            load_tensorflow()
            from switchx.data.streamed.stream import StreamedStream

            self._other = StreamedStream(self._config, self._numbers)
            self._other.restore(states)
            return
        self._other = None
        for number, shard in self._shards.items():
            shard.go_to(place_of(states[number], self._settings, self._config.seed))

    def report(self) -> dict[str, int]:
        return {} if self._other is None else self._other.report()

    def close(self) -> None:
        if self._other is not None:
            self._other.close()


class _Shard:
    """One shard of the rows, in the order in which they are shuffled."""

    def __init__(self, config: DataConfig, number: int) -> None:
        documents = _documents(config, "train")
        files, own = range(len(documents.of_files)), slice(number, None, config.shards)
        by_file = len(files) >= config.shards  # else their documents take turns
        if by_file and config.shards > 1:
            documents = documents.of(files[own])

        def order(epoch: int) -> np.ndarray:
            found = document_order(documents.of_files, config.seed, epoch)
            return found if by_file else found[own]

        self._rows = _rows(config, documents, order, None, config.seed)
        self.go_to(Shuffled(config.seed, objectives.SHUFFLED_ROWS))

    def go_to(self, order: Shuffled) -> None:
        """The next rows are those of an order."""
        self._block_begins, self._used = order, 0
        self._block: Batch = {}

    def take(self, rows: int) -> Batch:
        """The next so many rows."""
        parts = []
        while rows:
            if not self._block or self._used == _ROWS_OF_A_BLOCK:
                self.go_to(self.standing())
                self._block = self._rows.batch(self.standing().take(_ROWS_OF_A_BLOCK))
            own = slice(self._used, min(self._used + rows, _ROWS_OF_A_BLOCK))
            parts.append({name: x_BL[own] for name, x_BL in self._block.items()})
            rows -= own.stop - own.start
            self._used = own.stop
        return joined(parts)

    def standing(self, skipped: int = 0) -> Shuffled:
        """The order of the rows that nobody has taken, but for so many that are left out."""
        return self._block_begins.behind(self._used + skipped)


def position_of(order: Shuffled, settings: Mapping[str, Any]) -> bytes:
    content = {"given": order.given, "buffer": order.slots}
    return json.dumps({"format": _FORMAT, "identity": settings, **content}).encode()


def place_of(state: bytes, settings: Mapping[str, Any], seed: int) -> Shuffled:
    """The order of rows that a position stands before.

    Raises:
      UserError: the position is damaged, or of other settings.
    """
    room = objectives.SHUFFLED_ROWS
    try:
        content = json.loads(state)
        saved, given, buffer = dict(content["identity"]), content["given"], content["buffer"]
        if content["format"] != _FORMAT or not _is_count(given, _MOST_ROWS):
            raise ValueError
        if len(set(buffer)) != room or not all(_is_count(row, given + room) for row in buffer):
            raise ValueError
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise position.damaged("it is not one of an embedded corpus") from error
    position.check_settings(saved, settings)
    return Shuffled(seed, room, given, buffer)


def _is_count(value: object, end: int) -> bool:
    return type(value) is int and 0 <= value < end


def evaluation_batches(config: DataConfig) -> Iterator[Batch]:
    """Returns the first batches of the validation split, always the same.

    Every batch has config.rows_per_eval_batch rows: the last is filled up with rows of zeros,
    whose loss weights are zero.
    """
    check_values(config)
    documents, size = _documents(config, "validation"), config.rows_per_eval_batch
    order = lambda epoch: document_order(documents.of_files, None, epoch)  # noqa: E731
    rows = _rows(config, documents, order, 1, _EVAL_SEED)
    batches = -(-len(rows) // size)
    numbers = itertools.islice(range(batches), config.eval_batches)
    return (rows.batch(np.arange(number * size, (number + 1) * size)) for number in numbers)


def _rows(
    config: DataConfig,
    documents: Documents,
    order: Callable[[int], np.ndarray],
    epochs: int | None,
    seed: int,
) -> Rows:
    opened, lengths = vocabulary(config), dict(config.feature_lengths)
    (denoiser,) = denoisers_of(config.mixture_or_task_name, lengths["inputs"])
    spans = denoiser.density, denoiser.mean_span
    corruption = SpanCorruption(*spans, *opened.ids.sentinels.row)
    tokens = span_lengths(lengths["inputs"], *spans).tokens
    return Rows(documents, order, epochs, seed, corruption, tokens, lengths, opened.eos_id)


def _documents(config: DataConfig, split: str) -> Documents:
    return documents(config, _RECIPES[config.mixture_or_task_name], split)
