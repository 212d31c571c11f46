"""Experts in self-attention: against NumPy, in precision, with padding, scanned and decoded."""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from switchx.errors import UserError
from switchx.model import NO_NOISE, Model, SwitchConfig
from switchx.model.attention import Visibility
from switchx.model.expert_attention import ExpertAttention
from tests.helpers import (
    grouping,
    init,
    noise,
    random_inputs,
    random_mask,
    switch_config,
    tiny_config,
    with_switch,
)

D, H, K = 16, 4, 4


def softmax(x):
    powers = np.exp(x - x.max())
    return powers / powers.sum()


def projected(x_SD, mask_S, router_DE, query_EDT, key_EDT, choices, room):
    """Queries and keys of one group, token by token, and its statistics; float64."""
    S, E = len(x_SD), router_DE.shape[1]
    query_ST, key_ST = np.zeros((S, H * K)), np.zeros((S, H * K))
    f_E, P_E, z, dropped = np.zeros(E), np.zeros(E), 0.0, 0.0
    taken_E, real = [0] * E, mask_S.sum()
    for j in range(choices):
        for s in np.flatnonzero(mask_S):
            logits_E = x_SD[s] @ router_DE
            probs_E = softmax(logits_E)
            ranked = np.argsort(-probs_E, kind="stable")[:choices]
            gate = probs_E[ranked[j]]
            if choices > 1:
                gate = gate / probs_E[ranked].sum()
            else:
                P_E += probs_E / real
                z += math.log(np.exp(logits_E).sum()) ** 2 / real
            e = ranked[j]
            f_E[e] += 1 / (choices * real)
            if taken_E[e] < room:
                query_ST[s] += gate * (x_SD[s] @ query_EDT[e])
                key_ST[s] += gate * (x_SD[s] @ key_EDT[e])
            else:
                dropped += 1 / (choices * real)
            taken_E[e] += 1
    return (
        query_ST,
        key_ST,
        {"load_E": f_E, "dropped_fraction": dropped}
        | ({"balance_loss": E * (f_E @ P_E), "z_loss": z} if choices == 1 else {}),
    )


def attended(query_LT, key_MT, out_TD, bias_HLM, visible_LM):
    """Attention whose values are its keys."""
    y_LT = np.zeros_like(query_LT)
    for h in range(H):
        at = slice(h * K, (h + 1) * K)
        for q in range(len(query_LT)):
            seen = np.flatnonzero(visible_LM[q])
            logits = key_MT[seen, at] @ query_LT[q, at] + bias_HLM[h, q, seen]
            y_LT[q, at] = softmax(logits) @ key_MT[seen, at]
    return y_LT @ out_TD


def make(**changes):
    config = with_switch(tiny_config(), num_experts=3, experts_in="attention", **changes)
    return ExpertAttention(config, config.switch, nnx.Rngs(params=1))


def weights(attention):
    experts = attention.switch.experts
    params = (attention.switch.router.kernel_DE, experts.query_EDT, experts.key_value_EDT)
    return [np.array(p[...], np.float64) for p in params], np.array(attention.out_TD[...], float)


@pytest.mark.parametrize("dispatcher", ["einsum", "index", "ragged"])
@pytest.mark.parametrize("choices", [1, 2])
def test_a_layer_equals_token_by_token_numpy(dispatcher, choices):
    attention = make(dispatcher=dispatcher, top_k=choices)
    # Fresh queries and keys are too small for a wrong one to show in the softmax.
    attention.switch.experts.query_EDT[...] *= 8.0
    attention.switch.router.kernel_DE[...] *= 4.0
    kernels, out_TD = weights(attention)
    B, L = 4, 6
    groups = (2, 12)  # of two sequences each
    rng = np.random.default_rng(0)
    x = rng.normal(size=(B, L, D))
    mask, bias_HW = random_mask(rng, B, L), rng.normal(size=(H, 2 * L - 1))
    distance_LL = np.arange(L) - np.arange(L)[:, None]
    bias = bias_HW[:, L - 1 + distance_LL]
    visible = mask[:, None] & np.ones((1, L, L), bool)
    capacity = None if dispatcher == "ragged" else 3

    @jax.jit
    def layer(x, bias_HW):
        groups = grouping(attention.config, 12, capacity)
        heads = attention.of_itself(x, jnp.asarray(mask), groups, NO_NOISE)
        query, key, value, (routed,) = heads
        y_BLD = attention(
            query, key, value, bias_HW, Visibility(key_BM=jnp.asarray(mask, jnp.int32)), NO_NOISE
        )
        return y_BLD, query, routed.stats

    found, query_BLHK, stats = layer(jnp.asarray(x, jnp.float32), jnp.asarray(bias_HW, jnp.float32))
    grouped = zip(x.reshape(*groups, D), mask.reshape(groups), strict=True)
    room = 100 if capacity is None else capacity
    routed = [projected(*group, *kernels, choices, room) for group in grouped]
    query, key, expected = zip(*routed, strict=True)
    query, key = np.reshape(query, (B, L, -1)), np.reshape(key, (B, L, -1))
    np.testing.assert_allclose(query_BLHK.reshape(B, L, -1), query, rtol=1e-4, atol=1e-5)
    for b in range(B):
        y_LD = attended(query[b], key[b], out_TD, bias, visible[b])
        np.testing.assert_allclose(found[b], y_LD, rtol=1e-4, atol=1e-5)
    assert (stats.dropped_fraction > 0) == (capacity is not None)
    for name in expected[0]:
        mean = np.mean([group[name] for group in expected], axis=0)
        np.testing.assert_allclose(getattr(stats, name), mean, rtol=1e-4, atol=1e-6, err_msg=name)


def test_fresh_experts_are_as_large_as_dense_projections():
    """At init_scale 1: deviation (d_model d_kv)^-0.5 for queries, d_model^-0.5 for keys."""
    config = with_switch(tiny_config(d_model=64), experts_in="attention")
    experts = ExpertAttention(config, config.switch, nnx.Rngs(params=0)).switch.experts
    truncated = 0.8796  # what truncation at two deviations leaves of one
    assert np.std(experts.query_EDT[...]) == pytest.approx(truncated / 16, rel=0.05)
    assert np.std(experts.key_value_EDT[...]) == pytest.approx(truncated / 8, rel=0.05)


def lowered(**changes):
    """StableHLO of a loss and its gradients, bfloat16 compute; no two sizes are the same."""
    config = tiny_config(
        d_model=24,
        d_ff=56,
        d_kv=5,
        dtype="bfloat16",
        switch=switch_config(num_experts=7, experts_in="both", decoder_group_size=8, **changes),
    )
    model, inputs = Model.of(config), random_inputs(batch=4)

    def loss(params):
        output = model.bind(params)(*inputs, noise(4))
        return jnp.sum(output.logits_BLV) + jnp.sum(output.stats_N.balance_loss)

    return jax.jit(jax.value_and_grad(loss)).lower(model.shapes).as_text()


@pytest.mark.parametrize(
    ("dispatcher", "attention_dtype", "name"),
    [("einsum", "float32", "f32"), ("index", "float32", "f32"), ("index", "bfloat16", "bf16")],
)
def test_precision_in_the_lowered_program(dispatcher, attention_dtype, name):
    projections, feed_forwards = [], []
    for line in lowered(dispatcher=dispatcher, attention_dtype=attention_dtype).splitlines():
        if "stablehlo.dot_general" not in line:
            continue
        types = re.findall(r"tensor<([0-9x]+)x(\w+)>", line.rsplit(" : ", 1)[1])
        shapes = [sorted(map(int, shape.split("x"))) for shape, _ in types]
        for size, found in ((2 * H * 5, projections), (56, feed_forwards)):
            if sorted((7, 24, size)) in shapes or sorted((24, size)) in shapes:
                found.append(line)
                want = name if found is projections else "bf16"
                assert {dtype for _, dtype in types} == {want}, line
                if want == "f32":
                    assert "HIGHEST" in line  # or a TPU would take bfloat16 products
    assert len(projections) == 2 * 3  # per stack: forward, gradients of input and kernel
    assert len(feed_forwards) == 2 * 2 * 3 * 2  # experts and the dense layers


BOTH = dataclasses.replace(
    tiny_config(activation="geglu", dropout_rate=0.1, num_decoder_layers=1),
    switch=switch_config(every=1, experts_in="both", extra_dense=True, decoder_group_size=8),
)


def test_what_padding_holds_changes_nothing():
    """Nor the routing of attention: neither its losses, nor its slots, nor what real tokens get."""
    config = with_switch(BOTH, encoder_group_size=32)  # padding before another row's tokens
    params, model = init(config), Model.of(config)
    tokens = random_inputs(batch=4).encoder_token_BM

    @jax.jit
    def encode(params):
        return model.bind(params).encode(tokens, grouping(config, 32, 4), NO_NOISE)[:2]

    before, routed = encode(params)
    table = params["embedding"]["table_VD"]
    params["embedding"]["table_VD"] = table.at[0].set(100 * jnp.ones(16))
    after, routed_after = encode(params)
    real = tokens > 0
    assert not np.all(real)
    assert routed.stats.dropped_fraction.max() > 0
    np.testing.assert_array_equal(np.array(before)[real], np.array(after)[real])
    jax.tree.map(np.testing.assert_array_equal, routed, routed_after)


def test_statistics_come_attention_first_then_feed_forward_block_by_block():
    """A router of zeros sends all to expert 0, which shows in its own row."""
    model, inputs = Model.of(BOTH), random_inputs(batch=4)
    run = jax.jit(lambda params: model.bind(params)(*inputs, NO_NOISE).stats_N.load_E)
    params = init(BOTH)
    before = np.array(run(params))
    assert before.shape == (6, 4)
    for row, (stack, part, block) in {
        2: ("encoder", ("attention",), 1),
        5: ("decoder", ("feed_forward",), 0),
    }.items():
        changed = jax.tree.map(lambda p: p, params)
        router = changed[stack]["blocks"]["layer_0"][part[0]]["switch"]["router"]
        router["kernel_DE"] = router["kernel_DE"].at[block].set(0.0)
        after = np.array(run(changed))
        np.testing.assert_array_equal(after[row], [1, 0, 0, 0])
        np.testing.assert_array_equal(after[:row], before[:row])


def loss_and_gradients(config):
    model, inputs = Model.of(config), random_inputs(batch=4)

    def loss(params):
        output = model.bind(params)(*inputs, noise(4))
        auxiliary = jnp.sum(output.stats_N.balance_loss + output.stats_N.z_loss)
        return jnp.mean(jnp.square(output.logits_BLV)) + auxiliary

    return jax.jit(jax.value_and_grad(loss))(init(BOTH))


@pytest.fixture(scope="module")
def scanned():
    return loss_and_gradients(BOTH)


def test_every_parameter_has_a_gradient(scanned):
    _, gradients = scanned
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.any(leaf), jax.tree_util.keystr(path)


def test_scan_and_remat_change_nothing(scanned):
    """To keep all products is what depends on names of them; to keep none is any block's."""
    loss, gradients = scanned
    found_loss, found = loss_and_gradients(dataclasses.replace(BOTH, scan=False, remat="dots"))
    np.testing.assert_allclose(found_loss, loss, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), found, gradients
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"experts_in": "heads"}, "experts_in='heads' is not one of feed_forward, attention, both"),
        (
            {"experts_in": "attention", "extra_dense": True},
            "extra_dense=True .*'attention', where no",
        ),
        ({"attention_dtype": "bfloat16"}, "attention_dtype='bfloat16' .*experts_in='feed_forward'"),
        ({"extra_dense": 2}, "extra_dense=2 is not one of False, True"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        SwitchConfig(8, **changes)


def test_experts_less_precise_than_the_model_are_refused():
    switch = switch_config(experts_in="attention", attention_dtype="bfloat16")
    assert tiny_config(dtype="bfloat16", switch=switch).switch == switch
    with pytest.raises(UserError, match=r"attention_dtype='bfloat16' .* DTYPE='float32'"):
        tiny_config(dtype="float32", switch=switch)
