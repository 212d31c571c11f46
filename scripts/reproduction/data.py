"""The batches that every run sees, made once and kept in memory."""

import itertools

import numpy as np

from reproduction.plan import BATCH, EVAL_BATCHES, INPUT_LENGTH, TARGET_LENGTH, VOCABULARY
from switchx.data import Batch, DataConfig, eval_batches, train_stream


def load(steps: int) -> tuple[list[Batch], list[Batch]]:
    """The first `steps` training batches of the embedded corpus, and the held-out ones."""
    config = DataConfig(
        "python_docs_span_corruption",
        {"inputs": INPUT_LENGTH, "targets": TARGET_LENGTH},
        BATCH,
        eval_batches=EVAL_BATCHES,
        vocabulary=VOCABULARY,
    )
    stream = train_stream(config)
    train = list(itertools.islice(stream, steps))
    stream.close()
    return train, list(eval_batches(config))


def random_batch() -> Batch:
    """A batch of random tokens, for timing: what a step takes does not depend on the text."""
    rng = np.random.default_rng(0)
    tokens = lambda length: rng.integers(3, 250, (BATCH, length), np.int32)  # noqa: E731
    return {
        "encoder_input_tokens": tokens(INPUT_LENGTH),
        "decoder_input_tokens": tokens(TARGET_LENGTH),
        "decoder_target_tokens": tokens(TARGET_LENGTH),
        "decoder_loss_weights": np.ones((BATCH, TARGET_LENGTH), np.float32),
    }
