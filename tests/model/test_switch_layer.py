"""The whole switch layer against the oracle; its jitter; its precision in the lowered program."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switchx.errors import UserError
from switchx.model import NO_NOISE, Model
from switchx.model.switch_layer import num_groups
from tests.helpers import (
    grouping,
    noise,
    random_inputs,
    random_mask,
    switch_layer,
    tiny_config,
    with_switch,
)
from tests.model import oracle
from tests.model.routing_oracle import Policy


def run(layer, x, mask, groups, keys=NO_NOISE):
    y_BLD, routed = jax.jit(lambda *arrays: layer(*arrays, groups, keys))(x, mask)
    return y_BLD, routed.stats


def layer_params(layer):
    """The oracle's view of a layer's parameters."""
    params = {"router_DE": layer.router.kernel_DE}
    params |= {name: p for name, p in vars(layer.experts).items() if name.endswith(("F", "D"))}
    return {name: np.array(p[...], np.float64) for name, p in params.items()}


@pytest.mark.parametrize("dispatcher", ["einsum", "index"])
@pytest.mark.parametrize(("top_k", "activation"), [(1, "relu"), (2, "relu"), (1, "geglu")])
def test_the_layer_equals_the_oracle(dispatcher, top_k, activation):
    config = with_switch(
        tiny_config(activation=activation), dispatcher=dispatcher, top_k=top_k, num_experts=5
    )
    layer = switch_layer(config, 3)
    params = layer_params(layer)
    assert ("gate_EDF" in params) == (activation == "geglu")
    for seed, capacity in enumerate((1, 2, 2, 4)):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(4, 6, 16)).astype(np.float32)
        mask = random_mask(rng, 4, 6)
        y, stats = run(layer, x, mask, grouping(config, 12, capacity, True))
        groups = (2, 12)
        expected, expected_stats = oracle.switch_layer(
            x.reshape(*groups, 16).astype(np.float64),
            mask.reshape(groups),
            params,
            Policy(top_k=top_k),
            capacity,
            True,
        )
        np.testing.assert_allclose(y, expected.reshape(x.shape), rtol=1e-4, atol=1e-5)
        for name, value in vars(expected_stats).items():
            np.testing.assert_allclose(getattr(stats, name), value, rtol=1e-4, atol=1e-5)


def test_groups_that_do_not_divide_are_refused():
    assert num_groups(4, 6, 12) == 2
    with pytest.raises(UserError, match=r"24 tokens.*groups of 16.*ENCODER_GROUP_SIZE"):
        num_groups(4, 6, 16)


def test_jitter_touches_the_router_alone():
    """What experts receive is not shaken, so where the gate is sure nothing changes at all."""
    config = with_switch(tiny_config(), num_experts=1, jitter=0.5)
    layer = switch_layer(config, 0)
    x = jax.random.normal(jax.random.key(0), (2, 8, 16))
    mask = jnp.ones((2, 8), bool)
    groups = grouping(config, 8, 8, True)
    # One expert: its gate is 1 whatever the router says, so the output is the expert's.
    calm, _ = run(layer, x, mask, groups)
    shaken, _ = run(layer, x, mask, groups, noise(2))
    np.testing.assert_array_equal(calm, shaken)


def test_jitter_is_uniform_multiplicative_and_for_training_only():
    eps = 0.25
    config = with_switch(tiny_config(), jitter=eps)
    layer = switch_layer(config, 0)
    kernel = np.zeros((16, 4), np.float32)
    kernel[:4] = np.eye(4)
    layer.router.kernel_DE[...] = jnp.asarray(kernel)  # logits are the first four inputs
    x = jnp.full((64, 32, 16), 2.0)
    np.testing.assert_array_equal(
        jax.jit(lambda x: layer.router(x, NO_NOISE))(x), np.full((64, 32, 4), 2.0)
    )
    factor = np.array(jax.jit(lambda x: layer.router(x, noise(64)))(x)) / 2.0
    assert factor.min() >= 1 - eps
    assert factor.max() <= 1 + eps
    assert abs(factor.mean() - 1) < 5 * eps / np.sqrt(3 * factor.size)
    assert abs(factor.var() - eps**2 / 3) < 0.1 * eps**2 / 3


def test_training_without_jitter_routes_as_evaluation_does():
    config = with_switch(tiny_config(), jitter=0.0)
    layer = switch_layer(config, 0)
    x = jax.random.normal(jax.random.key(0), (2, 8, 16))
    np.testing.assert_array_equal(layer.router(x, noise(2)), layer.router(x, NO_NOISE))


# Sizes that no two dimensions of the model share, so that a shape in the program's text says
# what it is.
E, D, F, ROWS, LENGTH = 5, 24, 56, 4, 16


def lowered(dispatcher):
    """The StableHLO text of a loss and its gradients in training, under bfloat16 compute."""
    config = with_switch(
        tiny_config(d_model=D, d_ff=F, dtype="bfloat16", dropout_rate=0.1),
        num_experts=E,
        dispatcher=dispatcher,
        encoder_group_size=LENGTH,
        decoder_group_size=8,
    )
    model = Model.of(config)
    inputs = random_inputs(batch=ROWS, input_length=LENGTH)

    def loss(params):
        output = model.bind(params)(*inputs, noise(ROWS))
        balance = jnp.sum(output.stats_N.balance_loss + output.stats_N.z_loss)
        return jnp.sum(output.logits_BLV) + balance

    return jax.jit(jax.value_and_grad(loss)).lower(model.shapes).as_text()


TENSOR = re.compile(r"tensor<([0-9x]+)x(\w+)>")


def products(text):
    """(shape, dtype) of operands and result of every matrix product."""
    for line in text.splitlines():
        if "stablehlo.dot_general" in line:
            types = TENSOR.findall(line.rsplit(" : ", 1)[1])
            yield line, [([int(n) for n in shape.split("x")], dtype) for shape, dtype in types]


@pytest.mark.parametrize("dispatcher", ["einsum", "index", "ragged"])
def test_the_router_is_float32_and_the_experts_bfloat16(dispatcher):
    text = lowered(dispatcher)
    router, experts = [], []
    for line, types in products(text):
        shapes = [sorted(shape) for shape, _ in types]
        # The router's products, forward and backward, have the kernel [D, E] among their arrays.
        if sorted((D, E)) in shapes:
            router.append(line)
            assert {dtype for _, dtype in types} == {"f32"}, line
            assert "precision = [HIGHEST, HIGHEST]" in line
        # The experts' have the width F somewhere, and their weights [E, D, F] if in slots.
        elif any(F in shape for shape in shapes):
            experts.append(sorted((E, D, F)) in shapes)
            # Blocks of sorted rows are summed in float32, the operands are bfloat16 all the same.
            assert {dtype for _, dtype in types[:2]} == {"bf16"}, line
            assert dispatcher == "ragged" or types[2][1] == "bf16", line
    # Per stack: forward, gradient of the input, gradient of the kernel.
    assert len(router) == 2 * 3
    assert experts
    if dispatcher != "ragged":
        assert sum(experts) == 2 * 2 * 3
    # No array of logits or probabilities [G, S, E] in bfloat16, and their softmax in float32.
    for rows in (f"{ROWS}x{LENGTH}", f"{ROWS}x8"):
        assert f"tensor<{rows}x{E}xbf16>" not in text
        assert re.search(rf"stablehlo.exponential .*tensor<{rows}x{E}xf32>", text)


def test_statistics_are_float32_under_bfloat16():
    config = tiny_config(dtype="bfloat16")
    model = Model.of(config)
    output = jax.eval_shape(
        lambda params: vars(model.bind(params)(*random_inputs(), NO_NOISE)), model.shapes
    )
    assert {leaf.dtype.name for leaf in jax.tree.leaves(output)} == {"float32"}


def test_the_router_decides_in_float32():
    """Two experts whose logits differ by less than bfloat16 can tell are still told apart."""
    config = with_switch(tiny_config(dtype="bfloat16"), num_experts=2)
    layer = switch_layer(config, 0)
    kernel = np.zeros((16, 2), np.float32)
    kernel[0] = [1.0, 1.0 + 1e-4]
    layer.router.kernel_DE[...] = jnp.asarray(kernel)
    x = jnp.ones((1, 8, 16), jnp.bfloat16)
    _, stats = run(layer, x, jnp.ones((1, 8), bool), grouping(config, 8, 8, True))
    assert stats.load_E.tolist() == [0.0, 1.0]
