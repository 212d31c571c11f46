"""Any number of rows through batches of one size and a few lengths."""

import dataclasses

import jax
import numpy as np
import pytest

from switchx.inference import DecodingConfig, Sampling, beam_search, fill_blanks, places, predict
from switchx.inference.batches import padded
from switchx.inference.config import GREEDY
from switchx.inference.decoding import sample
from switchx.inference.prediction import pad
from switchx.model import Model, Transformer
from switchx.sharding import MeshConfig, make_mesh
from tests.inference.helpers import (
    EOS,
    LENGTH,
    VOCAB,
    Characters,
    answering_config,
    inputs,
    lively,
)

ROWS = [[token for token in row if token] for row in inputs(5).tolist()]
SAMPLED = DecodingConfig(
    LENGTH, method="sample", sampling=Sampling(temperature=2.0), seed=3, batch_size=2
)


def answers(config: DecodingConfig) -> list[list[int]]:
    model = answering_config(False)
    return list(predict(Model.of(model), lively(model), ROWS, config, max_input_length=100))


def test_rows_are_padded_to_one_size_and_a_few_lengths():
    assert pad([[1, 2]], 4, 512).shape == (4, 64)
    assert pad([[1] * 64], 4, 512).shape == (4, 64)
    assert pad([[1] * 65, [2]], 4, 512).shape == (4, 128)
    assert pad([[1] * 257, [2]], 4, 512).shape == (4, 384)
    assert pad([[1] * 385, [2]], 4, 512).shape == (4, 512)
    assert pad([[1] * 65], 4, 100).shape == (4, 100)
    np.testing.assert_array_equal(pad([[5, 6], [7]], 3, 2), [[5, 6], [7, 0], [0, 0]])
    with pytest.raises(ValueError, match="a row of 3 tokens"):
        pad([[1, 2, 3]], 4, 2)


def test_answers_are_those_of_one_batch_in_order():
    config = answering_config(False)
    token_BM = pad(ROWS, 5, LENGTH)
    expected_BL = sample(
        Model.of(config), lively(config), token_BM, LENGTH, SAMPLED.sampling, SAMPLED.seed
    )
    expected = [[token for token in row if token] for row in np.asarray(expected_BL).tolist()]
    found = answers(SAMPLED)
    assert found == expected
    assert any(EOS in row for row in found)
    assert all(EOS not in row[:-1] for row in found)


def test_the_method_is_the_one_asked_for():
    config = answering_config(False)
    greedy = answers(dataclasses.replace(SAMPLED, method="greedy"))
    beam = dataclasses.replace(SAMPLED, method="beam", num_beams=3, length_penalty=2.0)
    token_BPL, _ = beam_search(
        Model.of(config), lively(config), pad(ROWS, 5, LENGTH), LENGTH, 3, 2.0
    )
    best = [[token for token in row if token] for row in np.asarray(token_BPL)[:, 0].tolist()]
    assert answers(beam) == best
    assert greedy not in (best, answers(SAMPLED))


@pytest.mark.parametrize("method", ["greedy", "sample", "beam"])
def test_many_rows_have_the_answers_they_have_alone(method, monkeypatch):
    """Places are filled again and again, for one or two lengths of inputs, and room grows."""
    monkeypatch.setattr(places, "_FIRST_ROOM", 4)
    config = answering_config(method == "greedy")
    model, params = Model.of(config), lively(config)
    rng = np.random.default_rng(1)
    longest = 80 if method == "greedy" else 60
    rows = [rng.integers(2, VOCAB, length).tolist() for length in rng.integers(1, longest, 40)]
    decoding = dataclasses.replace(SAMPLED, method=method, num_beams=3, length=20, batch_size=16)
    found = list(predict(model, params, rows, decoding, max_input_length=longest))
    token_BM = padded(rows, len(rows), longest)
    if method == "beam":
        expected_BL = beam_search(model, params, token_BM, 20, 3, decoding.length_penalty)[0][:, 0]
    else:
        sampling = decoding.sampling if method == "sample" else GREEDY
        expected_BL = sample(model, params, token_BM, 20, sampling, decoding.seed)
    expected = [[token for token in row if token] for row in np.asarray(expected_BL).tolist()]
    assert found == expected
    assert max(map(len, found)) > 4 > min(map(len, found))


def test_each_shape_is_compiled_once(monkeypatch):
    config = answering_config(False)
    model, params = Model.of(config), lively(config)
    steps = []
    decode_step = Transformer.decode_step

    def counting(self, *args):
        steps.append(args)
        return decode_step(self, *args)

    monkeypatch.setattr(Transformer, "decode_step", counting)
    decoding = DecodingConfig(LENGTH - 1, batch_size=3)
    for rows in (ROWS * 4, ROWS[::-1]):
        list(predict(model, params, rows, decoding, max_input_length=100))
    assert len(steps) == 1


def test_rows_shared_out_over_a_mesh_have_the_same_answers():
    config = answering_config()
    model, params = Model.of(config), lively(config)
    decoding, rows = DecodingConfig(LENGTH, batch_size=8), ROWS * 4 + ROWS[:1]
    alone = list(predict(model, params, rows, decoding, LENGTH))
    with jax.set_mesh(make_mesh(MeshConfig(data=2, expert=2, model=2))):
        assert list(predict(model, params, rows, decoding, LENGTH)) == alone


def test_no_rows_have_no_answers():
    assert list(predict(None, {}, [], SAMPLED, 10)) == []


def test_texts_are_filled():
    vocabulary = Characters()
    config = answering_config(False, vocab_size=vocabulary.size)
    texts = ["a __ b", "no blank"]
    first, second = fill_blanks(
        Model.of(config), lively(config), vocabulary, texts, DecodingConfig(LENGTH), 64
    )
    assert first.filled == f"a {first.blanks[0]} b"
    assert (second.blanks, second.filled) == ([], "no blank")
