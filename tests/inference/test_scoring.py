"""A score is what decoding gives, token by token: one rule of routing for both, at every policy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switchx.inference import score, score_rows
from switchx.model import Model
from switchx.sharding import MeshConfig, make_mesh
from tests.helpers import with_switch
from tests.inference.helpers import LENGTH, VOCAB, answering_config, inputs, lively
from tests.model.policies import DROPLESS, POLICIES

# One of each that evaluates by a rule of its own.
NAMES = [
    "switch",
    "top 2, by gate",
    "above a threshold",
    "first of top 2",
    "two more rounds, by gate",
    "experts choose",
    "dropless top 2",
]
ROWS = 4


def targets():
    target_BL = np.random.default_rng(2).integers(1, VOCAB, (ROWS, LENGTH)).astype(np.int32)
    target_BL[1, 5:] = 0
    return target_BL


@functools.partial(jax.jit, static_argnums=0)
def by_decoding(config, params, encoder_token_BM, target_BL):
    """The sum of the log-probabilities that decoding has for each target token in turn."""
    transformer = Model.of(config).bind(params)
    shifted_BL = jnp.pad(target_BL, ((0, 0), (1, 0)))[:, :-1]

    def step(written, per_token):
        position, token_B, target_B = per_token
        position_B = jnp.full(ROWS, position)
        logits_BPV, written = transformer.decode_step(
            token_B[:, None], position_B, encoded, written
        )
        logp_BV = jax.nn.log_softmax(logits_BPV[:, 0])
        logp_B = jnp.take_along_axis(logp_BV, target_B[:, None], axis=1)[:, 0]
        return written, jnp.where(target_B > 0, logp_B, 0.0)

    encoded = transformer.read(encoder_token_BM)
    written = transformer.nothing_written(encoded, LENGTH)
    per_token = (jnp.arange(LENGTH), shifted_BL.T, target_BL.T)
    return jnp.sum(jax.lax.scan(step, written, per_token)[1], axis=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_score_is_the_sum_of_decodings_log_probabilities(name):
    # Evaluation's capacity would leave most tokens without room.
    changes = dict(eval_capacity_factor=0.5, **{**POLICIES, **DROPLESS}[name])
    config = with_switch(answering_config(), **changes)
    model, params = Model.of(config), lively(config)
    found_B = score(model, params, inputs(ROWS), targets())
    np.testing.assert_allclose(
        found_B, by_decoding(config, params, inputs(ROWS), targets()), rtol=1e-4
    )


def many_rows(rows=11):
    """Inputs and targets of two shapes, one target without a token."""
    rng = np.random.default_rng(3)
    draw = lambda length: rng.integers(1, VOCAB, length).tolist()  # noqa: E731
    encoder_rows = [draw(length) for length in rng.integers(1, 90, rows)]
    target_rows = [draw(length) for length in rng.integers(1, 8, rows)]
    target_rows[5] = []
    return encoder_rows, target_rows


def test_rows_have_the_scores_they_have_alone():
    config = answering_config()
    model, params = Model.of(config), lively(config)
    encoder_rows, target_rows = many_rows()
    assert len({len(tokens) > 64 for tokens in encoder_rows}) == 2
    found = score_rows(model, params, encoder_rows, target_rows, 4)
    assert found[5] == 0.0
    encoder_token_BM, target_token_BL = np.zeros((2, 11, 90), np.int32)
    for rows, token_BL in ((encoder_rows, encoder_token_BM), (target_rows, target_token_BL)):
        for row, tokens in zip(token_BL, rows, strict=True):
            row[: len(tokens)] = tokens
    expected_B = score(model, params, encoder_token_BM, target_token_BL[:, :8])
    np.testing.assert_allclose(found, expected_B, rtol=1e-5)
    backwards = score_rows(model, params, encoder_rows[::-1], target_rows[::-1], 4)
    assert backwards[::-1] == found  # bit for bit, in other company
    assert score_rows(model, params, [], [], 4) == []
    with jax.set_mesh(make_mesh(MeshConfig(data=2, expert=2, model=2))):
        meshed = score_rows(model, params, encoder_rows[:4], target_rows[:4], 4)
    np.testing.assert_allclose(meshed, found[:4], rtol=1e-4)
