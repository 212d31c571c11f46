"""The whole model: what may change what, and what must change nothing."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from switchx.model import NO_NOISE, Model, Noise, experts, layers, remat, router
from switchx.model.attention import whole
from switchx.model.dispatch import slots
from tests.helpers import (
    grouping,
    init,
    noise,
    random_inputs,
    sparse_config,
    tiny_config,
    with_switch,
)

# Groups of whole rows in both stacks, so that a row's neighbours cannot take its slots.
BY_ROW = sparse_config(num_layers=2, decoder_group_size=8)
BATCH = 8


@functools.cache
def forward(config):
    model = Model.of(config)
    return jax.jit(lambda params, inputs, keys: vars(model.bind(params)(*inputs, keys)))


def run(config, params, inputs, keys=NO_NOISE):
    """Logits and statistics, as NumPy arrays."""
    output = jax.tree.map(np.array, forward(config)(params, tuple(inputs), keys))
    return output["logits_BLV"], output["stats_N"]


def test_logits_and_statistics_have_their_shapes():
    logits, stats = run(BY_ROW, init(BY_ROW), random_inputs(batch=BATCH))
    assert logits.shape == (BATCH, 8, 64)
    assert logits.dtype == np.float32
    assert stats.load_E.shape == (4, 4)  # two switch layers of each stack, four experts
    np.testing.assert_allclose(stats.load_E.sum(-1), 1.0, rtol=1e-5)
    assert stats.balance_loss.shape == (4,)


def test_a_dense_model_has_no_statistics():
    config = tiny_config(num_layers=1, switch=None)
    logits, stats = run(config, init(config), random_inputs())
    assert stats is None
    assert np.all(np.isfinite(logits))


def test_statistics_are_of_every_layer_the_encoder_s_first():
    """Sending all tokens to one expert in one layer shows in that layer's row and no other."""
    params = init(BY_ROW)
    _, before = run(BY_ROW, params, random_inputs(batch=BATCH))
    kernel = params["decoder"]["blocks"]["layer_0"]["feed_forward"]["switch"]["router"]
    kernel["kernel_DE"] = kernel["kernel_DE"].at[1].set(0.0)  # the second block's: ties go to 0
    _, after = run(BY_ROW, params, random_inputs(batch=BATCH))
    np.testing.assert_array_equal(after.load_E[3], [1, 0, 0, 0])
    np.testing.assert_array_equal(after.load_E[:3], before.load_E[:3])


def test_rows_do_not_depend_on_their_neighbours():
    """Rows 4 to 7 with their own keys give what they give within the batch: microbatches agree."""
    config = dataclasses.replace(BY_ROW, dropout_rate=0.2)
    params, inputs = init(config), random_inputs(batch=BATCH)
    whole, stats = run(config, params, inputs, noise(BATCH))
    halves = [
        run(config, params, inputs.rows(slice(at, at + 4)), noise(4, first_row=at)) for at in (0, 4)
    ]
    joined = np.concatenate([logits for logits, _ in halves])
    np.testing.assert_allclose(whole, joined, rtol=1e-4, atol=1e-5)
    mean = jax.tree.map(lambda one, other: (one + other) / 2, halves[0][1], halves[1][1])
    for ours, theirs in zip(jax.tree.leaves(stats), jax.tree.leaves(mean), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_training_is_noisy_and_evaluation_is_not():
    config = dataclasses.replace(BY_ROW, dropout_rate=0.2)
    params, inputs = init(config), random_inputs(batch=BATCH)
    train = [run(config, params, inputs, noise(BATCH, step=step))[0] for step in (0, 0, 1)]
    np.testing.assert_array_equal(train[0], train[1])
    assert not np.allclose(train[0], train[2])
    np.testing.assert_array_equal(run(config, params, inputs)[0], run(config, params, inputs)[0])


def test_every_use_of_randomness_has_keys_of_its_own(monkeypatch):
    """Every dropout and jitter of every layer of both stacks: no site repeats another's numbers."""
    switch = with_switch(BY_ROW, every=2, experts_in="both", extra_dense=True)
    # Two blocks in the encoder, of which the second is a dense layer.
    sizes = dict(num_layers=3, num_decoder_layers=2)
    config = dataclasses.replace(switch, dropout_rate=0.2, scan=False, **sizes)
    model, inputs, used = Model.of(config), random_inputs(batch=2), []
    # What is used within a function that is traced apart could not be returned from here.
    monkeypatch.setattr(jax, "checkpoint", lambda function: function)
    bits = Noise.bits
    monkeypatch.setattr(
        Noise, "bits", lambda self, shape: used.append(self.key()) or bits(self, shape)
    )

    @jax.jit
    def keys_used(params):
        used.clear()
        model.bind(params)(*inputs, noise(2))
        return used

    # Per dense layer of the encoder: weights, residual, activations, residual. A switch layer has
    # its jitter too, that of attention's router, and the extra feed-forward's activations and
    # residual, a decoder layer another attention, a stack a dropout at either end.
    keys = [tuple(np.ravel(part)[0] for part in key) for key in keys_used(init(config))]
    assert len(keys) == (4 + 5 + 3 + 4) + (6 + 7 + 3) + 2 * 2
    assert len(set(keys)) == len(keys)


def test_capacity_is_that_of_training_or_of_evaluation():
    config = with_switch(BY_ROW, train_capacity_factor=0.25, eval_capacity_factor=4.0, jitter=0.0)
    params, inputs = init(config), random_inputs(batch=BATCH)
    _, train = run(config, params, inputs, noise(BATCH))
    _, evaluation = run(config, params, inputs)
    assert np.all(train.dropped_fraction > 0)
    assert np.all(evaluation.dropped_fraction == 0)


def test_the_decoder_is_causal():
    params, inputs = init(BY_ROW), random_inputs(batch=BATCH)
    all_real = dataclasses.replace(inputs, decoder_mask_BL=np.ones((BATCH, 8), bool))
    changed = all_real.decoder_token_BL.copy()
    changed[:, 5:] = (changed[:, 5:] + 7) % 64
    before, _ = run(BY_ROW, params, all_real)
    after, _ = run(BY_ROW, params, dataclasses.replace(all_real, decoder_token_BL=changed))
    np.testing.assert_allclose(before[:, :5], after[:, :5], rtol=1e-5, atol=1e-6)
    assert np.all(np.abs(before[:, 5:] - after[:, 5:]).max(-1) > 1e-3)


def test_the_encoder_looks_both_ways():
    params, inputs = init(BY_ROW), random_inputs(batch=BATCH)
    changed = inputs.encoder_token_BM.copy()
    changed[:, 3] = changed[:, 3] % 63 + 1
    before, _ = run(BY_ROW, params, inputs)
    after, _ = run(BY_ROW, params, dataclasses.replace(inputs, encoder_token_BM=changed))
    assert np.all(np.abs(before - after).max(-1) > 0)


def test_what_padding_holds_changes_nothing_in_the_encoder():
    """Padding has an embedding of its own; whatever it is, real tokens and statistics stay."""
    config = with_switch(BY_ROW, encoder_group_size=32)  # padding before another row's tokens
    params = init(config)
    model, tokens = Model.of(config), random_inputs(batch=BATCH).encoder_token_BM

    @jax.jit
    def encode(params):
        return model.bind(params).encode(tokens, grouping(config, 32, 4), NO_NOISE)[:2]

    before, stats_before = encode(params)
    table = params["embedding"]["table_VD"]
    params["embedding"]["table_VD"] = table.at[0].set(100 * jnp.ones(16))
    after, stats_after = encode(params)
    real = tokens > 0
    assert not np.all(real)
    np.testing.assert_array_equal(np.array(before)[real], np.array(after)[real])
    jax.tree.map(np.testing.assert_array_equal, stats_before, stats_after)


def test_what_padding_holds_changes_nothing_in_the_decoder():
    config = with_switch(BY_ROW, decoder_group_size=16)
    params, inputs = init(config), random_inputs(batch=BATCH)
    real = inputs.decoder_mask_BL
    assert not np.all(real)
    changed = np.where(real, inputs.decoder_token_BL, 63).astype(np.int32)
    before, stats_before = run(config, params, inputs)
    after, stats_after = run(config, params, dataclasses.replace(inputs, decoder_token_BL=changed))
    np.testing.assert_array_equal(before[real], after[real])
    jax.tree.map(np.testing.assert_array_equal, stats_before, stats_after)


def loss_and_gradients(config, params, dtype="float32"):
    model = Model.of(config)
    inputs = random_inputs(batch=BATCH)

    def loss(params):
        output = model.bind(params)(*inputs, noise(BATCH))
        auxiliary = jnp.sum(output.stats_N.balance_loss + output.stats_N.z_loss)
        return jnp.mean(jnp.square(output.logits_BLV)) + auxiliary

    return jax.jit(jax.value_and_grad(loss))(params)


@pytest.fixture(scope="module")
def scanned():
    """Two layers with experts in the encoder, two dense ones in the decoder: one kind in each."""
    config = dataclasses.replace(with_switch(BY_ROW, decoder_sparse=()), dropout_rate=0.1)
    return config, loss_and_gradients(config, init(config))


@pytest.mark.parametrize(
    "changes",
    [{"scan": False, "remat": "dots"}, {"remat": "full"}],
)
def test_scan_and_remat_change_nothing(scanned, changes):
    config, (loss, gradients) = scanned
    changed = dataclasses.replace(config, **changes)
    found_loss, found = loss_and_gradients(changed, init(config))
    np.testing.assert_allclose(found_loss, loss, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), found, gradients
    )


def test_blocks_run_one_after_another_where_they_train_alone():
    config = dataclasses.replace(BY_ROW, num_layers=3, scan=False)
    model, inputs = Model.of(config), random_inputs(batch=BATCH)

    def loops(keys):
        """Over three blocks."""

        def logits(params):
            return model.bind(params)(*inputs, keys).logits_BLV

        traced = jax.make_jaxpr(logits)(model.shapes)
        own = (eqn.params for eqn in traced.eqns if eqn.primitive.name == "scan")
        return sum(params["length"] == 3 for params in own)

    assert loops(noise(BATCH)) == 0
    assert loops(NO_NOISE) == 2


def test_the_forms_of_tpus_change_nothing(scanned, monkeypatch):
    """What they keep for the backward pass, and compute again in it, on a CPU."""
    for module in (experts, layers, remat, router, slots, whole):
        monkeypatch.setattr(module, "platform", lambda: "tpu")
    config, (loss, gradients) = scanned
    found_loss, found = loss_and_gradients(dataclasses.replace(config, remat="dots"), init(config))
    np.testing.assert_allclose(found_loss, loss, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), found, gradients
    )


def test_every_parameter_has_a_gradient(scanned):
    """Experts that got no token aside, which here is none."""
    _, (_, gradients) = scanned
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.any(leaf), jax.tree_util.keystr(path)


def test_binding_and_taking_apart_gives_the_same_parameters():
    model, params = Model.of(BY_ROW), init(BY_ROW)
    again = nnx.to_pure_dict(nnx.state(model.bind(params)))
    assert jax.tree.structure(again) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, again, params)


def test_bfloat16_is_near_float32():
    config = dataclasses.replace(BY_ROW, dtype="bfloat16")
    params, inputs = init(BY_ROW), random_inputs(batch=BATCH)
    exact, _ = run(BY_ROW, params, inputs)
    rough, _ = run(config, params, inputs)
    assert rough.dtype == np.float32
    # A rounded token may find another expert, so not every logit need be near.
    assert np.median(np.abs(exact - rough)) < 0.02 * np.abs(exact).max()
