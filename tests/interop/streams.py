"""Batches of random tokens for a run on 16 + 8 tokens."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from tests.interop.peers import VOCAB

ROWS, INPUTS, TARGETS = 8, 16, 8


def batch(number: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number)
    inputs = rng.integers(1, VOCAB, (ROWS, INPUTS)).astype(np.int32)
    targets = inputs[:, :TARGETS]
    return {
        "encoder_input_tokens": inputs,
        "decoder_input_tokens": np.pad(targets[:, :-1], ((0, 0), (1, 0))),
        "decoder_target_tokens": targets,
        "decoder_loss_weights": np.ones(targets.shape, np.float32),
    }


class Stream:
    """Batches 0, 1, 2, ..."""

    def __init__(self, shards: Sequence[int]) -> None:
        assert list(shards) == [0]
        self.number = -1

    def __next__(self) -> dict[str, np.ndarray]:
        self.number += 1
        return batch(self.number)

    def skip(self, examples: int) -> None:
        raise AssertionError("nothing was rolled back")

    def state(self) -> dict[int, bytes]:
        return {0: b"0"}

    def restore(self, states: Mapping[int, bytes]) -> None:
        raise AssertionError("an imported model has no position")

    def report(self) -> dict[str, int]:
        return {}


def eval_batches() -> Iterator[dict[str, np.ndarray]]:
    yield batch(10**6)
