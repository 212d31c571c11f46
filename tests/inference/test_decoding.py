"""Decoding with a cache is the model itself, row by row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switchx.inference import Sampling, beam_search, greedy, sample, score
from switchx.model import Model
from switchx.sharding import MeshConfig, make_mesh
from tests.helpers import with_switch
from tests.inference.helpers import (
    EOS,
    LENGTH,
    VOCAB,
    answering_config,
    full_forward,
    inputs,
    lively,
    log_softmax,
)

KINDS = pytest.mark.parametrize("switch", [False, True], ids=["dense", "switch"])


@pytest.mark.parametrize(
    "config",
    [
        answering_config(False),
        with_switch(answering_config(), every=2),  # layers of both kinds
        with_switch(answering_config(), experts_in="attention"),
        with_switch(answering_config(), experts_in="both", extra_dense=True, top_k=2),
    ],
    ids=["dense", "switch", "expert attention", "all of it"],
)
def test_every_step_has_the_logits_of_the_full_forward(config):
    params, encoder_token_BM = lively(config), inputs(4)
    decoder_token_BL = np.random.default_rng(1).integers(0, VOCAB, (4, LENGTH)).astype(np.int32)

    @jax.jit
    def stepwise(params):
        transformer = Model.of(config).bind(params)
        encoded = transformer.read(jnp.asarray(encoder_token_BM))

        def step(written, of_step):
            token_B, position = of_step
            position_B = jnp.full(4, position)
            logits_BPV, written = transformer.decode_step(
                token_B[:, None], position_B, encoded, written
            )
            return written, logits_BPV[:, 0]

        written = transformer.nothing_written(encoded, LENGTH)
        _, logits_LBV = jax.lax.scan(step, written, (decoder_token_BL.T, jnp.arange(LENGTH)))
        return jnp.swapaxes(logits_LBV, 0, 1)

    expected_BLV = full_forward(config, params, encoder_token_BM, decoder_token_BL)
    # Lively experts in attention make its softmax steep, which enlarges what rounding leaves.
    atol = 1e-4 if config.switch and config.switch.in_attention else 1e-5
    np.testing.assert_allclose(stepwise(params), expected_BLV, rtol=1e-4, atol=atol)


@KINDS
def test_greedy_equals_a_loop_of_full_forwards(switch):
    config = answering_config(switch)
    params, encoder_token_BM = lively(config), inputs(8)
    answer_BL = np.zeros((8, LENGTH), np.int32)
    for position in range(LENGTH):
        shifted_BL = np.pad(answer_BL, ((0, 0), (1, 0)))[:, :-1]
        logits_BLV = np.asarray(full_forward(config, params, encoder_token_BM, shifted_BL))
        token_B = 1 + logits_BLV[:, position, 1:].argmax(axis=-1)
        ended_B = (answer_BL == EOS).any(axis=1)
        answer_BL[:, position] = np.where(ended_B, 0, token_B)
    assert len(np.unique(answer_BL)) > 4, "the test's model should have something to say"
    np.testing.assert_array_equal(
        greedy(Model.of(config), params, encoder_token_BM, LENGTH), answer_BL
    )


def test_an_answer_is_zeros_after_its_end():
    config = answering_config(False)
    model, params = Model.of(config), lively(config)
    plain_BL = np.asarray(greedy(model, params, inputs(8), LENGTH))
    eos_id = int(plain_BL[0, 2])
    answer_BL = np.asarray(greedy(model, params, inputs(8), LENGTH, eos_id))
    assert len({(row == eos_id).argmax() for row in answer_BL if eos_id in row}) > 1
    for plain, answer in zip(plain_BL.tolist(), answer_BL.tolist(), strict=True):
        end = plain.index(eos_id) + 1 if eos_id in plain else LENGTH
        if EOS not in plain[:end]:
            assert answer == plain[:end] + [0] * (LENGTH - end)


def test_decoding_stops_once_every_row_has_ended(monkeypatch):
    config = answering_config(False)
    params, encoder_token_BM = lively(config), inputs(3)
    encoder_token_BM[2] = 0  # a row that only fills up the batch has nothing to say
    steps = []
    original = jax.lax.while_loop

    def counting(condition, body, start):
        end = original(condition, body, start)
        jax.debug.callback(lambda position_B: steps.append(max(position_B)), end[0].position_B)
        return end

    monkeypatch.setattr(jax.lax, "while_loop", counting)
    first_B = np.asarray(greedy(Model.of(config), params, encoder_token_BM, LENGTH))[:, 0]
    assert steps.pop() == LENGTH
    encoder_token_BM[1] = encoder_token_BM[0]
    answer_BL = np.asarray(greedy(Model.of(config), params, encoder_token_BM, LENGTH, first_B[0]))
    jax.effects_barrier()
    assert steps.pop() == 1
    assert not answer_BL[2].any()


def test_an_answer_does_not_depend_on_neighbours_or_padding():
    config = answering_config()
    model, params, encoder_token_BM = Model.of(config), lively(config), inputs(6)
    sampling = Sampling(temperature=0.8, top_k=8, top_p=0.95)
    together_BL = sample(model, params, encoder_token_BM, LENGTH, sampling, seed=5)
    padded_BM = np.pad(encoder_token_BM[3:5], ((0, 2), (0, 5)))
    rows = np.array([3, 4, 0, 0])
    apart_BL = sample(model, params, padded_BM, LENGTH, sampling, seed=5, row_B=rows)
    np.testing.assert_array_equal(apart_BL[:2], together_BL[3:5])
    renumbered_BL = sample(model, params, padded_BM, LENGTH, sampling, 5, np.array([0, 1, 2, 3]))
    assert (np.asarray(renumbered_BL[:2]) != np.asarray(apart_BL[:2])).any()


@KINDS
def test_score_is_the_log_probability_of_the_target(switch):
    config = answering_config(switch)
    params, encoder_token_BM = lively(config), inputs(4)
    target_BL = np.random.default_rng(2).integers(1, VOCAB, (4, LENGTH)).astype(np.int32)
    target_BL[1, 5:] = 0
    shifted_BL = np.pad(target_BL, ((0, 0), (1, 0)))[:, :-1]
    logp_BLV = log_softmax(full_forward(config, params, encoder_token_BM, shifted_BL))
    logp_BL = np.take_along_axis(logp_BLV, target_BL[..., None], axis=-1)[..., 0]
    expected_B = (logp_BL * (target_BL > 0)).sum(axis=1)
    # Evaluation's own settings would drop most tokens: scoring must not.
    tight = answering_config(switch)
    if switch:
        object.__setattr__(tight.switch, "eval_capacity_factor", 0.25)
    actual_B = score(Model.of(tight), params, encoder_token_BM, target_BL)
    np.testing.assert_allclose(actual_B, expected_B, rtol=1e-4)


def test_a_mesh_does_not_change_the_answer():
    config = answering_config()
    model, params, encoder_token_BM = Model.of(config), lively(config), inputs(4)
    alone_BPL, _ = beam_search(model, params, encoder_token_BM, LENGTH, 3)
    with jax.set_mesh(make_mesh(MeshConfig(data=2, expert=2, model=2))):
        meshed_BPL, _ = beam_search(model, params, encoder_token_BM, LENGTH, 3)
    np.testing.assert_array_equal(meshed_BPL, alone_BPL)
