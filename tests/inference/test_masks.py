"""Blanks filled and scored by an encoder alone, against its logits for each row by itself."""

import functools

import jax
import numpy as np

from switchx.inference import in_place, predict_masks, score_rows
from switchx.model import NO_NOISE, Groupings, Model
from switchx.sharding import MeshConfig, make_mesh
from tests.inference.helpers import EOS, Characters, answering_config, lively, log_softmax

WORDS = Characters(alphabet="abcdefgh")
CONFIG = answering_config(vocab_size=WORDS.size + 2, num_decoder_layers=0)
MODEL, PARAMS = Model.of(CONFIG), lively(CONFIG)
MASK = WORDS.sentinel_id(0)
TEXTS = ["ab<extra_id_0>defg", "<extra_id_0>bc<extra_id_1>", "h<extra_id_1>", "abc"]


@functools.cache
def logits(*row):
    """float32 [8, V] of a row by itself."""
    token_BM = np.zeros((1, 8), np.int32)
    token_BM[0, : len(row)] = row
    return np.asarray(_logits(PARAMS, token_BM))[0]


@jax.jit
def _logits(params, token_BM):
    groupings = Groupings.for_answers(CONFIG.switch, 8, 1)
    return MODEL.bind(params).at_inputs(token_BM, NO_NOISE, None, groupings).logits_BLV


def rows():
    return [[*WORDS.encode_blanks(text), EOS] for text in TEXTS]


def test_each_blank_gets_its_likeliest_token_of_text():
    with jax.set_mesh(make_mesh(MeshConfig(2, 1, 1), jax.devices()[:2])):
        found = list(predict_masks(MODEL, PARAMS, rows(), WORDS, batch_size=2))
    text = [n for n in range(WORDS.size) if n > EOS and n < WORDS.size - WORDS.sentinels]
    for row, answer in zip(rows(), found, strict=True):
        blanks = [i for i, token in enumerate(row) if token > max(text)]
        of_row = logits(*(MASK if i in blanks else token for i, token in enumerate(row)))
        best = [max(text, key=lambda n, i=i: of_row[i, n]) for i in blanks]
        pairs = zip((row[i] for i in blanks), best, strict=True)
        assert answer == [*(token for pair in pairs for token in pair), EOS]
    assert len({tuple(answer) for answer in found}) == 4


def test_a_choice_takes_as_many_masks_as_it_has_tokens():
    inputs = [*WORDS.encode_blanks("a<extra_id_0>c<extra_id_1>"), EOS]
    target = [*WORDS.encode_blanks("<extra_id_0>bbb<extra_id_1>"), EOS]
    masked, filled = in_place(inputs, target, WORDS)
    assert filled == [*WORDS.encode("abbbc"), EOS]
    assert masked == [*WORDS.encode("a"), MASK, MASK, MASK, *WORDS.encode("c"), EOS]


def test_a_score_is_that_of_what_is_masked():
    masked = [[MASK if i in (1, 3) else 2 + i for i in range(length)] for length in (5, 7, 4)]
    whole = [[2 + i % 8 for i in range(length)] for length in (5, 7, 4)]
    found = score_rows(MODEL, PARAMS, masked, whole, batch_size=2)
    for row, target, score in zip(masked, whole, found, strict=True):
        logp = log_softmax(logits(*row))
        expected = sum(logp[i, target[i]] for i in (1, 3))
        np.testing.assert_allclose(score, expected, rtol=1e-4)
