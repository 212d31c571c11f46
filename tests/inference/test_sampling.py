"""Draws follow the softmax, cut as the user says, from noise of their own place alone."""

import jax.numpy as jnp
import numpy as np
import pytest

from switchx.errors import UserError
from switchx.inference import DecodingConfig, Sampling, greedy, sample
from switchx.inference.sampling import next_token
from switchx.model import Model, Noise
from tests.inference.helpers import LENGTH, answering_config, inputs, lively

DRAWS = 20_000
PROBS_V = np.array([0.0, 0.4, 0.05, 0.3, 0.2, 0.05])  # token 0 is padding


def frequencies(sampling: Sampling) -> np.ndarray:
    logits_V = np.log(np.maximum(PROBS_V, 1e-30))
    logits_V[0] = 5.0  # whatever a model says of padding, it is never drawn
    logits_BV = jnp.broadcast_to(jnp.asarray(logits_V, jnp.float32), (DRAWS, len(PROBS_V)))
    noise_B = Noise.for_rows(3, jnp.uint32(0), jnp.arange(DRAWS))
    token_B = np.asarray(next_token(logits_BV, sampling, noise_B))
    return np.bincount(token_B, minlength=len(PROBS_V)) / DRAWS


@pytest.mark.parametrize(
    ("sampling", "expected_V"),
    [
        (Sampling(), PROBS_V),
        (Sampling(temperature=0.5), PROBS_V**2),
        (Sampling(temperature=2.0), PROBS_V**0.5),
        (Sampling(temperature=0.0), [0, 1, 0, 0, 0, 0]),
        (Sampling(top_k=1), [0, 1, 0, 0, 0, 0]),
        (Sampling(top_k=3), [0, 0.4, 0, 0.3, 0.2, 0]),
        (Sampling(top_k=100), PROBS_V),
        (Sampling(top_p=0.3), [0, 1, 0, 0, 0, 0]),
        (Sampling(top_p=0.6), [0, 0.4, 0, 0.3, 0, 0]),
        (Sampling(top_p=0.8), [0, 0.4, 0, 0.3, 0.2, 0]),
        # 0.4 is 0.57 of the two that top_k leaves: they are the whole that top_p is a part of.
        (Sampling(top_k=2, top_p=0.5), [0, 1, 0, 0, 0, 0]),
        (Sampling(top_k=2, top_p=0.6), [0, 0.4, 0, 0.3, 0, 0]),
    ],
    ids=str,
)
def test_frequencies_match_the_softmax(sampling, expected_V):
    expected_V = np.array(expected_V) / np.sum(expected_V)
    actual_V = frequencies(sampling)
    np.testing.assert_array_equal(actual_V[expected_V == 0], 0)
    deviation_V = np.sqrt(expected_V * (1 - expected_V) / DRAWS)
    assert np.all(np.abs(actual_V - expected_V) <= 4 * deviation_V)


def test_equal_logits_leave_top_k_one_choice():
    noise_B = Noise.for_rows(0, jnp.uint32(0), jnp.arange(50))
    token_B = next_token(jnp.zeros((50, 8)), Sampling(top_k=1), noise_B)
    np.testing.assert_array_equal(token_B, 1)


def test_positions_seeds_and_rows_draw_apart():
    config = answering_config(False)
    model, params = Model.of(config), lively(config)
    same_BM = np.repeat(inputs(1), 4, axis=0)
    bold = Sampling(temperature=50.0)  # nearly uniform: what repeats, repeats for its noise

    def draw(seed: int) -> np.ndarray:
        no_end = -1  # all answers have their full length, so none are equal for being short
        return np.asarray(sample(model, params, same_BM, LENGTH, bold, seed, eos_id=no_end))

    answer_BL, again_BL, other_BL = draw(0), draw(0), draw(1)
    np.testing.assert_array_equal(again_BL, answer_BL)
    assert len({tuple(row) for row in [*answer_BL, *other_BL]}) == 8
    assert all(len(set(row)) > 2 for row in answer_BL)


def test_top_k_one_equals_greedy():
    config = answering_config()
    model, params = Model.of(config), lively(config)
    drawn_BL = sample(model, params, inputs(8), LENGTH, Sampling(top_k=1), seed=9)
    np.testing.assert_array_equal(drawn_BL, greedy(model, params, inputs(8), LENGTH))


@pytest.mark.parametrize(
    ("kind", "setting", "flag"),
    [
        (Sampling, {"temperature": -1.0}, "--temperature=-1.0"),
        (Sampling, {"temperature": float("nan")}, "--temperature=nan"),
        (Sampling, {"top_k": -1}, "--top_k=-1"),
        (Sampling, {"top_p": 0.0}, "--top_p=0.0"),
        (Sampling, {"top_p": 1.5}, "--top_p=1.5"),
        (DecodingConfig, {"length": 0}, "--max_length=0"),
        (DecodingConfig, {"length": 4, "num_beams": 0}, "--num_beams=0"),
        (DecodingConfig, {"length": 4, "batch_size": 0}, "--batch_size=0"),
        (DecodingConfig, {"length": 4, "seed": -1}, "--seed=-1"),
        (DecodingConfig, {"length": 4, "length_penalty": -0.1}, "--length_penalty=-0.1"),
        (DecodingConfig, {"length": 4, "method": "guess"}, "--method=guess"),
    ],
    ids=str,
)
def test_a_wrong_setting_is_named(kind, setting, flag):
    with pytest.raises(UserError, match=f"^{flag} must be "):
        kind(**setting)
