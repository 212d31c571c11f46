"""Greedy and beam answers equal those of transformers' generate, token for token."""

import numpy as np
import pytest

from switchx.inference import beam_search, greedy
from tests.interop.peers import LENGTH, ours, peer, torch

EOS, ROWS = 1, 6
VOCAB = 12  # few, so that some answers end early
SEEDS = range(3)


def inputs(seed: int, padded: bool) -> np.ndarray:
    rng = np.random.default_rng(seed)
    token_BM = rng.integers(2, VOCAB, (ROWS, LENGTH)).astype(np.int32)
    if padded:
        token_BM *= np.arange(LENGTH) < rng.integers(1, LENGTH + 1, (ROWS, 1))
    return token_BM


def theirs(kind: str, seed: int, token_BM: np.ndarray, num_beams: int, returned: int) -> np.ndarray:
    """int [B, returned, LENGTH]: what follows the start token, zeros after the end."""
    settings = dict(length_penalty=0.0, early_stopping="never") if num_beams > 1 else {}
    with torch.no_grad():
        answers = peer(kind, seed, VOCAB).generate(
            input_ids=torch.tensor(token_BM).long(),
            attention_mask=torch.tensor(token_BM > 0).long(),
            max_new_tokens=LENGTH,
            do_sample=False,
            num_beams=num_beams,
            num_return_sequences=returned,
            suppress_tokens=[0],  # switchx never answers with padding
            eos_token_id=EOS,
            pad_token_id=0,
            **settings,
        )
    answers = answers[:, 1:].numpy()
    answers = np.pad(answers, ((0, 0), (0, LENGTH - answers.shape[1])))
    # Its beam search fills up with the end of sequence where the padding is 0.
    answers *= np.cumsum(answers == EOS, axis=1) - (answers == EOS) == 0
    return answers.reshape(ROWS, returned, LENGTH)


def check_varied(answers: list[np.ndarray]) -> None:
    """Some answers must end early and some be cut off, or the test shows little."""
    every = np.concatenate([a.reshape(-1, LENGTH) for a in answers])
    cut_off = (every != EOS).all(axis=1)
    assert cut_off.any()
    assert not cut_off.all()
    assert len(np.unique(every, axis=0)) > len(answers)


@pytest.mark.parametrize("kind", ["t5", "t5_1_1", "switch", "umt5"])
@pytest.mark.parametrize("padded", [False, True])
def test_greedy(kind, padded):
    answers = []
    for seed in SEEDS:
        token_BM = inputs(seed, padded)
        answers.append(np.asarray(greedy(*ours(kind, seed, VOCAB), token_BM, LENGTH, EOS)))
        expected = theirs(kind, seed, token_BM, 1, 1)[:, 0]
        np.testing.assert_array_equal(answers[-1], expected)
    check_varied(answers)


@pytest.mark.parametrize("kind", ["t5", "t5_1_1", "switch"])
@pytest.mark.parametrize("padded", [False, True])
def test_beams(kind, padded):
    answers = []
    for seed in SEEDS:
        token_BM = inputs(seed, padded)
        found, _ = beam_search(*ours(kind, seed, VOCAB), token_BM, LENGTH, 4, 0.0, EOS)
        answers.append(np.asarray(found))
        np.testing.assert_array_equal(answers[-1], theirs(kind, seed, token_BM, 4, 4))
    check_varied(answers)


def test_a_beam_of_one():
    token_BM = inputs(0, True)
    found, _ = beam_search(*ours("switch", 0, VOCAB), token_BM, LENGTH, 1, 0.0, EOS)
    np.testing.assert_array_equal(found, theirs("switch", 0, token_BM, 1, 1))
