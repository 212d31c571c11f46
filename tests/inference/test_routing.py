"""The routing that is returned on request is the one that happened, layer by layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switchx.errors import UserError
from switchx.inference import routing
from switchx.model import NO_NOISE, Groupings, Model
from tests.helpers import noise, with_switch
from tests.inference.helpers import LENGTH, VOCAB, answering_config, inputs, lively

ROWS, E = 3, 4


def targets():
    target_BL = np.random.default_rng(2).integers(1, VOCAB, (ROWS, LENGTH)).astype(np.int32)
    target_BL[1, 5:] = 0
    return target_BL


@pytest.mark.parametrize(
    "changes",
    [{}, dict(top_k=2, experts_in="both"), dict(encoder_routing="experts_choose")],
    ids=["switch", "top 2 in both", "experts choose"],
)
def test_it_is_what_each_router_says_of_its_tokens(changes):
    """One layer is sent to one expert, and shows so in its own place and no other."""
    config = with_switch(answering_config(), **changes)
    model, params = Model.of(config), lively(config)
    encoder_BM, target_BL = inputs(ROWS), targets()
    before = routing(model, params, encoder_BM, target_BL)
    for stack, tokens_BL in zip(before, (encoder_BM, target_BL), strict=True):
        chosen = config.switch.encoder_routing == "experts_choose" and stack is before.encoder
        N, J = 2 * (1 + config.switch.in_attention), E if chosen else config.switch.top_k
        assert stack.expert_NBLJ.shape == (N, *tokens_BL.shape, J)
        real = np.broadcast_to((tokens_BL > 0)[..., None], stack.kept_NBLJ.shape)
        assert not stack.kept_NBLJ[~real].any()
        np.testing.assert_array_equal(stack.gate_NBLJ > 0, stack.kept_NBLJ)
        if not chosen:
            assert stack.kept_NBLJ[real].all()
            assert len(np.unique(stack.expert_NBLJ)) == E
    # The decoder's last switch layer: with a router of zeros ties go to the first experts.
    block = params["decoder"]["blocks"]["layer_0"]["feed_forward"]["switch"]["router"]
    block["kernel_DE"] = block["kernel_DE"].at[1].set(0.0)
    after = routing(model, params, encoder_BM, target_BL)
    for j in range(config.switch.top_k):
        assert (after.decoder.expert_NBLJ[-1, ..., j] == j).all()
    jax.tree.map(np.testing.assert_array_equal, after.encoder, before.encoder)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[:-1], b[:-1]), after[1], before[1])


@pytest.mark.parametrize("scan", [True, False])
def test_loads_follow_from_it_in_training_too(scan):
    """Counted over the choices returned, scanned or not, loads are those of the statistics."""
    config = with_switch(answering_config(scan=scan), top_k=2)
    model, params = Model.of(config), lively(config)
    mask_BL = np.ones((ROWS + 1, LENGTH), bool)
    groupings = Groupings.of(config.switch, train=True).recorded()

    @jax.jit
    def run(params):
        output = model.bind(params)(
            inputs(ROWS + 1),
            mask_BL.astype(np.int32),
            mask_BL,
            noise(ROWS + 1),
            groupings=groupings,
        )
        return output.stats_N.load_E, output.encoder_N.assignment, output.decoder_N.assignment

    load_NE, *stacks = run(params)
    counted = []
    for stack, real in zip(stacks, (inputs(ROWS + 1) > 0, mask_BL), strict=True):
        for expert_GSJ in np.asarray(stack.expert_GSJ):
            real_GS = real.reshape(expert_GSJ.shape[:2])
            shares = [np.bincount(e[m].ravel(), minlength=E) / e[m].size
                      for e, m in zip(expert_GSJ, real_GS, strict=True)]  # fmt: skip
            counted.append(np.mean(shares, axis=0))
    np.testing.assert_allclose(load_NE, counted, rtol=1e-5)


def test_nothing_is_returned_and_nothing_computed_unless_asked():
    config = answering_config()
    model = Model.of(config)
    tokens = jnp.ones((2, LENGTH), jnp.int32)
    plain, asked = Groupings.of(config.switch, False), Groupings.of(config.switch, False).recorded()

    def outputs(groupings):
        return jax.make_jaxpr(
            lambda params: vars(
                model.bind(params)(tokens, tokens, tokens > 0, NO_NOISE, groupings=groupings)
            )
        )(model.shapes)

    assert len(outputs(asked).out_avals) == len(outputs(plain).out_avals) + 2 * (4 + 2)
    assert str(outputs(plain)) == str(outputs(None))


def test_a_dense_model_has_none():
    config = answering_config(switch=False)
    with pytest.raises(UserError, match="dense model, which routes nothing"):
        routing(Model.of(config), lively(config), inputs(ROWS), targets())


def test_a_bias_decides_who_is_chosen_and_who_is_next_and_no_gate():
    config = with_switch(answering_config(), balance_bias=0.1)
    model, params = Model.of(config), lively(config)
    names = ("encoder", "blocks", "layer_0", "feed_forward", "switch", "router")
    router = params
    for name in names:
        router = router[name]
    bias_NE = np.asarray(np.random.default_rng(3).normal(size=router["bias_E"].shape), np.float32)
    encoder_BM = inputs(ROWS)
    router["bias_E"] = jnp.zeros_like(bias_NE)
    before = routing(model, params, encoder_BM, targets()).encoder
    router["bias_E"] = jnp.asarray(bias_NE)
    after = routing(model, params, encoder_BM, targets()).encoder
    # Of the first layer, whose inputs are the same.
    logit_BME = np.full((*encoder_BM.shape, E), -np.inf)
    np.put_along_axis(logit_BME, before.likely_NBLK[0], np.log(before.prob_NBLK[0]), -1)
    np.put_along_axis(logit_BME, after.likely_NBLK[0], np.log(after.prob_NBLK[0]), -1)
    real = encoder_BM > 0
    ranked = np.argsort(-(logit_BME + bias_NE[0]), axis=-1)
    np.testing.assert_array_equal(after.expert_NBLJ[0][real], ranked[real][:, :1])
    np.testing.assert_array_equal(after.likely_NBLK[0][real], ranked[real][:, :2])
    assert (after.expert_NBLJ[0] != before.expert_NBLJ[0])[real].any()
    gate = np.exp(np.take_along_axis(logit_BME, after.expert_NBLJ[0], axis=-1))
    np.testing.assert_allclose(after.gate_NBLJ[0][real], gate[real], rtol=1e-5)
