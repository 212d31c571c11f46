"""An encoder without a decoder: what it sees, and what refuses to do without one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switchx.errors import UserError
from switchx.model import NO_NOISE, Groupings, Model
from tests.helpers import init, tiny_config

CONFIG = dataclasses.replace(tiny_config(), num_decoder_layers=0)
# No token is dropped, so that what a token gets depends on what it sees alone.
GROUPINGS = Groupings.for_answers(CONFIG.switch, 16, 1)


def logits(token_BL, segment_BL=None):
    def run(params):
        module = Model.of(CONFIG).bind(params)
        return module.at_inputs(token_BL, NO_NOISE, segment_BL, GROUPINGS).logits_BLV

    return np.asarray(jax.jit(run)(init(CONFIG)))


def tokens():
    return np.random.default_rng(0).integers(1, 64, (2, 16)).astype(np.int32)


def test_every_place_sees_what_is_before_and_behind_it():
    token_BL = tokens()
    before = logits(token_BL)
    for place in (0, 15):
        changed_BL = token_BL.copy()
        changed_BL[0, place] = token_BL[0, place] % 63 + 1
        after = logits(changed_BL)
        assert (np.abs(after[0] - before[0]).max(axis=-1) > 0).all()
        np.testing.assert_array_equal(after[1], before[1])


def test_examples_in_a_row_see_nothing_of_each_other():
    token_BL = tokens()
    apart_BL = np.zeros((2, 16), np.int32)
    apart_BL[0, :10], apart_BL[1, :6] = token_BL[0, :10], token_BL[0, 10:]
    segment_BL = np.repeat([[1, 2]], [10, 6], axis=1).astype(np.int32)
    packed = logits(np.stack([token_BL[0]] * 2), jnp.asarray(np.repeat(segment_BL, 2, axis=0)))
    apart = logits(apart_BL)
    np.testing.assert_allclose(packed[0, :10], apart[0, :10], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(packed[0, 10:], apart[1, :6], rtol=1e-4, atol=1e-5)


def test_it_has_no_parameters_of_a_decoder_and_writes_nothing():
    assert not [name for name in Model.of(CONFIG).shapes if name.startswith("decoder")]
    with pytest.raises(UserError, match=r"num_decoder_layers=0 is an encoder alone, which writes"):
        Model.of(CONFIG).bind(init(CONFIG)).read(tokens())


def test_experts_in_the_decoder_that_is_not_there():
    switch = dataclasses.replace(CONFIG.switch, decoder_sparse=(1,))
    with pytest.raises(UserError, match=r"decoder_sparse=\(1,\) with .*num_decoder_layers=0"):
        dataclasses.replace(CONFIG, switch=switch)
