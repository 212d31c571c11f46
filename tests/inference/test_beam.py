"""Beam search finds what a search without arrays, cache or early end finds."""

import itertools

import numpy as np
import pytest

from switchx.inference import beam_search, greedy, score
from switchx.model import Model
from tests.inference.helpers import (
    EOS,
    LENGTH,
    answering_config,
    full_forward,
    inputs,
    lively,
    log_softmax,
)

SHORT = 4
TOKENS = (2, 3, 4)  # of a vocabulary of 5 with padding and end of sequence


class Toy:
    """A model of five tokens, and its next-token probabilities after every prefix."""

    def __init__(self):
        config = answering_config(length=SHORT, vocab_size=5)
        self.model, self.params = Model.of(config), lively(config, seed=8)
        self.encoder_token_BM = inputs(4) % 5
        self.logp = []  # per row: log-probabilities [V] of what follows a prefix
        prefixes = np.array(list(itertools.product(TOKENS, repeat=SHORT - 1)), np.int32)
        shifted_BL = np.pad(prefixes, ((0, 0), (1, 0)))
        for row in self.encoder_token_BM:
            rows = np.broadcast_to(row, (len(prefixes), len(row)))
            logits_BLV = full_forward(config, self.params, rows, shifted_BL)
            table = {}
            for prefix, logp_LV in zip(prefixes.tolist(), log_softmax(logits_BLV), strict=True):
                table |= {tuple(prefix[:n]): logp_LV[n] for n in range(SHORT)}
            self.logp.append(table)

    def search(self, rows: slice, num_beams: int, alpha: float):
        token_BPL, score_BP = beam_search(
            self.model, self.params, self.encoder_token_BM[rows], SHORT, num_beams, alpha
        )
        return np.asarray(token_BPL), np.asarray(score_BP)


@pytest.fixture(scope="module")
def toy() -> Toy:
    return Toy()


def normalised(logp: float, length: int, alpha: float) -> float:
    return logp / ((5 + length) / 6) ** alpha


def exhaustive(table, alpha: float) -> list[tuple[float, tuple[int, ...]]]:
    """Every hypothesis with its score, best first."""
    found = []
    for length in range(SHORT + 1):
        for prefix in itertools.product(TOKENS, repeat=length):
            tokens = prefix if length == SHORT else (*prefix, EOS)
            logp = sum(table[tokens[:n]][token] for n, token in enumerate(tokens))
            found.append((normalised(logp, len(tokens), alpha), tokens))
    return sorted(found, reverse=True)


def plain_beam(table, num_beams: int, alpha: float) -> list[tuple[float, tuple[int, ...]]]:
    """Beam search by lists, that never ends early."""
    alive, done = [(0.0, ())], []
    for _ in range(SHORT):
        grown = [
            (logp + table[tokens][token], (*tokens, token))
            for logp, tokens in alive
            for token in (EOS, *TOKENS)
        ]
        grown = sorted(grown, reverse=True)[: 2 * num_beams]
        best = grown[:num_beams]
        done += [(normalised(p, len(t), alpha), t) for p, t in best if t[-1] == EOS]
        done = sorted(done, reverse=True)[:num_beams]
        alive = [(p, t) for p, t in grown if t[-1] != EOS][:num_beams]
    done += [(normalised(p, len(t), alpha), t) for p, t in alive]
    return sorted(done, reverse=True)[:num_beams]


def assert_same(token_PL: np.ndarray, score_P: np.ndarray, expected: list) -> None:
    padded = [tokens + (0,) * (SHORT - len(tokens)) for _, tokens in expected]
    np.testing.assert_array_equal(token_PL, padded)
    np.testing.assert_allclose(score_P, [score for score, _ in expected], rtol=1e-4)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 3.0])
def test_a_wide_beam_equals_exhaustive_search(toy, alpha):
    width = len(TOKENS) ** SHORT  # as many as can be alive at once
    token_BPL, score_BP = toy.search(slice(None), width, alpha)
    for row, table in enumerate(toy.logp):
        assert_same(token_BPL[row], score_BP[row], exhaustive(table, alpha)[:width])


@pytest.mark.parametrize("alpha", [0.0, 3.0])
@pytest.mark.parametrize("num_beams", [2, 3])
def test_a_narrow_beam_equals_a_plain_one(toy, num_beams, alpha):
    # Of these rows, some have their best answer after num_beams others have ended. They are
    # searched apart: in a batch, a row that goes on would hide that another ended too early.
    for row, table in enumerate(toy.logp):
        token_BPL, score_BP = toy.search(slice(row, row + 1), num_beams, alpha)
        assert_same(token_BPL[0], score_BP[0], plain_beam(table, num_beams, alpha))


def test_places_without_a_hypothesis_are_empty(toy):
    token_BPL, score_BP = beam_search(toy.model, toy.params, toy.encoder_token_BM[:2], 1, 8)
    assert np.isfinite(score_BP).sum(axis=1).tolist() == [4, 4]  # the end and three tokens
    assert not np.asarray(token_BPL)[:, 4:].any()


def test_scores_are_those_of_the_answers():
    # Wrong if a hypothesis went on with the cache of another.
    config = answering_config()
    model, params, encoder_token_BM = Model.of(config), lively(config), inputs(3)
    token_BPL, score_BP = beam_search(model, params, encoder_token_BM, LENGTH, 4, 0.6)
    assert (np.diff(score_BP, axis=1) <= 0).all()
    for p in range(4):
        logp_B = np.asarray(score(model, params, encoder_token_BM, token_BPL[:, p]))
        length_B = (np.asarray(token_BPL[:, p]) > 0).sum(axis=1)
        expected_B = [normalised(s, n, 0.6) for s, n in zip(logp_B, length_B, strict=True)]
        np.testing.assert_allclose(score_BP[:, p], expected_B, rtol=1e-4)


@pytest.mark.parametrize("alpha", [0.0, 3.0])
def test_a_beam_of_one_is_greedy(alpha):
    config = answering_config(False)
    model, params, encoder_token_BM = Model.of(config), lively(config), inputs(8)
    # Another end of sequence than 1, one that many answers come to.
    eos_id = int(np.asarray(greedy(model, params, encoder_token_BM, LENGTH))[0, 2])
    token_BPL, _ = beam_search(model, params, encoder_token_BM, LENGTH, 1, alpha, eos_id)
    expected_BL = greedy(model, params, encoder_token_BM, LENGTH, eos_id)
    np.testing.assert_array_equal(token_BPL[:, 0], expected_BL)


def test_rows_of_padding_have_no_hypotheses():
    config = answering_config(False)
    encoder_token_BM = inputs(3)
    encoder_token_BM[1] = 0
    model, params = Model.of(config), lively(config)
    token_BPL, score_BP = beam_search(model, params, encoder_token_BM, LENGTH, 2)
    assert not np.asarray(token_BPL)[1].any()
    assert np.isneginf(score_BP).tolist() == [[False] * 2, [True] * 2, [False] * 2]
