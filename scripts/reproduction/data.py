"""The batches that every run sees, made once and kept in memory."""

import itertools
from pathlib import Path

import numpy as np

from reproduction.plan import BATCH, EVAL_BATCHES, INPUT_LENGTH, PIECES, TARGET_LENGTH
from switchx.data import Batch, DataConfig, eval_batches, train_stream
from switchx.data.tasks import corpus


def load(folder: Path, steps: int) -> tuple[list[Batch], list[Batch]]:
    """The first `steps` training batches of the embedded corpus, and the held-out ones.

    The vocabulary is made in `folder` where it is not there yet.
    """
    config = DataConfig(
        "python_docs_span_corruption",
        {"inputs": INPUT_LENGTH, "targets": TARGET_LENGTH},
        BATCH,
        eval_batches=EVAL_BATCHES,
        vocabulary=str(folder / "sentencepiece.model"),
    )
    if not Path(config.vocabulary).exists():
        train_vocabulary(corpus.ensure(config.cache_path), Path(config.vocabulary))
    stream = train_stream(config)
    train = list(itertools.islice(stream, steps))
    stream.close()
    return train, list(eval_batches(config))


def train_vocabulary(documents: corpus.Corpus, path: Path) -> None:
    """A vocabulary of the training documents with few pieces."""
    files = sorted(documents.folder.glob("train-*.txt"))
    lines = (line.rstrip("\n") for file in files for line in file.open(encoding="utf-8"))
    corpus.train_vocabulary(lines, path, PIECES)


def random_batch() -> Batch:
    """A batch of random tokens, for timing: what a step takes does not depend on the text."""
    rng = np.random.default_rng(0)
    tokens = lambda length: rng.integers(3, PIECES, (BATCH, length), np.int32)  # noqa: E731
    return {
        "encoder_input_tokens": tokens(INPUT_LENGTH),
        "decoder_input_tokens": tokens(TARGET_LENGTH),
        "decoder_target_tokens": tokens(TARGET_LENGTH),
        "decoder_loss_weights": np.ones((BATCH, TARGET_LENGTH), np.float32),
    }
