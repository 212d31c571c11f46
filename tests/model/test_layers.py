"""Normalisation, feed-forward, embedding and initial values, against their formulas."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from switchx.model import NO_NOISE, Model
from switchx.model.activations import ACTIVATIONS
from switchx.model.dispatch import Operations
from switchx.model.experts import Experts
from switchx.model.layers import Embedding, FeedForward, RMSNorm
from tests.helpers import init, noise, tiny_config, with_switch
from tests.model import oracle


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_rms_norm(dtype):
    norm = RMSNorm(tiny_config(), nnx.Rngs(params=0))
    scale = np.linspace(0.5, 2, 16).astype(np.float32)
    norm.scale_D[...] = jnp.asarray(scale)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 16)), dtype)
    exact = np.array(x, np.float64)
    expected = exact / np.sqrt((exact**2).mean(-1, keepdims=True) + 1e-6) * scale
    found = norm(x)
    assert found.dtype == dtype
    tolerance = 1e-5 if dtype == jnp.float32 else 1e-2
    np.testing.assert_allclose(np.array(found, np.float64), expected, rtol=tolerance)


def _by_erf(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


# Each by its formula, and whether it is gated.
FORMULAS = {
    "relu": (lambda x: np.maximum(x, 0), False),
    "gelu_tanh": (oracle.gelu, False),
    "gelu_erf": (_by_erf, False),
    "silu": (lambda x: x / (1 + np.exp(-x)), False),
    "reglu": (lambda x: np.maximum(x, 0), True),
    "geglu": (oracle.gelu, True),
    "geglu_erf": (_by_erf, True),
    "swiglu": (lambda x: x / (1 + np.exp(-x)), True),
}


def test_relu_has_the_gradient_of_jax_s():
    x = jnp.asarray([-np.inf, -1, -0.0, 0, 1e-38, 2, np.inf])
    slope = jax.vmap(jax.grad(ACTIVATIONS["relu"].function))(x)
    np.testing.assert_array_equal(slope, jax.vmap(jax.grad(jax.nn.relu))(x))
    np.testing.assert_array_equal(ACTIVATIONS["relu"].function(x), jax.nn.relu(x))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_feed_forward(activation):
    """A dense one, and as one of two experts."""
    config = tiny_config(activation=activation)
    layer, experts = (make(config) for make in (_dense, _two_experts))
    function, gated = FORMULAS[activation]
    x = 3 * np.random.default_rng(0).normal(size=(2, 3, 16))

    def expected(x, wi, wo, gate=None):
        assert (gate is not None) == gated
        return (function(x @ wi) if gate is None else function(x @ gate) * (x @ wi)) @ wo

    def kernels(of, suffixes):
        found = {name: getattr(of, f"{name}_{suffix}", None) for name, suffix in suffixes.items()}
        return {name: np.array(p[...], float) for name, p in found.items() if p is not None}

    found = layer(jnp.asarray(x, jnp.float32), NO_NOISE)
    dense = kernels(layer, {"wi": "DF", "wo": "FD", "gate": "DF"})
    np.testing.assert_allclose(found, expected(x, **dense), atol=2e-5)

    def product(x_END, kernel_EDF):
        return jnp.einsum("end,edf->enf", x_END, kernel_EDF)

    operations = Operations(product, drop=lambda h: h)
    found = experts.compute(experts.kernels(), jnp.asarray(x, jnp.float32), operations)
    stacked = kernels(experts, {"wi": "EDF", "wo": "EFD", "gate": "EDF"})
    np.testing.assert_allclose(found, expected(x, **stacked), atol=2e-5)


def _dense(config):
    return FeedForward(config, nnx.Rngs(params=0))


def _two_experts(config):
    return Experts(config, 2, config.d_ff, nnx.Rngs(params=0))


def test_feed_forward_dropout_shares_its_mask_along_the_length():
    layer = FeedForward(tiny_config(dropout_rate=0.5), nnx.Rngs(params=0))
    x = jnp.broadcast_to(jax.random.normal(jax.random.key(0), (4, 1, 16)), (4, 5, 16))
    y = np.array(layer(x, noise(4)))
    np.testing.assert_array_equal(y, np.broadcast_to(y[:, :1], y.shape))
    assert not np.allclose(y, layer(x, NO_NOISE))


@pytest.mark.parametrize("tied", [True, False])
def test_embedding_and_logits(tied):
    embedding = Embedding(tiny_config(tied_embeddings=tied), nnx.Rngs(params=0))
    table = np.array(embedding.table_VD[...])
    np.testing.assert_array_equal(embedding.embed(jnp.array([[3, 0]])), table[[3, 0]][None])
    x = np.random.default_rng(0).normal(size=(1, 2, 16)).astype(np.float32)
    weights = table.T * 16**-0.5 if tied else np.array(embedding.logits_DV[...])
    np.testing.assert_allclose(embedding.logits(jnp.asarray(x)), x @ weights, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_logits_gradients_are_products_in_the_compute_dtype(tied, dtype):
    config = tiny_config(tied_embeddings=tied, dtype=dtype)
    graphdef, params = nnx.split(Embedding(config, nnx.Rngs(params=0)))
    rng = np.random.default_rng(0)
    x_BLD, dy_BLV = rng.normal(size=(1, 3, 16)), rng.normal(size=(1, 3, config.vocab_size))
    name, axes = ("table_VD", "vd") if tied else ("logits_DV", "dv")

    def gradients(x_BLD, params, dy_BLV):
        back = jax.vjp(lambda x, params: nnx.merge(graphdef, params).logits(x), x_BLD, params)[1]
        dx_BLD, dparams = back(dy_BLV)
        return dx_BLD, dparams[name][...]

    given = jnp.asarray(x_BLD, dtype), params, jnp.asarray(dy_BLV, jnp.float32)
    text = jax.jit(gradients).lower(*given).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    short = {"float32": "f32", "bfloat16": "bf16"}[dtype]
    assert len(products) == 2  # the logits themselves are not needed
    assert all(line.split(" : (")[1].count(f"x{short}>") >= 2 for line in products)
    dx_BLD, dweights = jax.jit(gradients)(*given)
    given = given[0], params[name][...], given[2]
    x_BLD, weights, dy_BLV = (np.asarray(a, np.float64) for a in given)
    dy_BLV = dy_BLV * (16**-0.5 if tied else 1.0)
    limit = 1e-5 if dtype == "float32" else 2**-6  # bfloat16 keeps 8 digits of each operand
    for found, expected in (
        (dx_BLD, np.einsum(f"{axes},blv->bld", weights, dy_BLV)),
        (dweights, np.einsum(f"blv,bld->{axes}", dy_BLV, x_BLD)),
    ):
        error = np.abs(np.asarray(found, np.float64) - expected).max() / np.abs(expected).max()
        assert error < limit


# Deviations of the initial values by the last part of a parameter's name, and whether they are
# truncated at two of them. D 64, F 128, K 8, H 4 and init_scale 0.1.
D, F, K, H = 64, 128, 8, 4
EXPECTED = {
    "table_VD": (1.0, False),
    "logits_DV": ((0.1 / D) ** 0.5, True),
    "table_HR": (D**-0.5, False),
    "query_DT": ((D * K) ** -0.5, False),
    "key_DT": (D**-0.5, False),
    "value_DT": (D**-0.5, False),
    "out_TD": ((H * K) ** -0.5, False),
    "wi_DF": ((0.1 / D) ** 0.5, True),
    "gate_DF": ((0.1 / D) ** 0.5, True),
    "wo_FD": ((0.1 / F) ** 0.5, True),
    "wi_EDF": ((0.1 / D) ** 0.5, True),
    "gate_EDF": ((0.1 / D) ** 0.5, True),
    "wo_EFD": ((0.1 / F) ** 0.5, True),
    "kernel_DE": ((0.1 / D) ** 0.5, True),
}


@pytest.fixture(scope="module")
def initial():
    """All initial values of a model by the last part of their names, each [copies, size]."""
    config = with_switch(
        tiny_config(
            d_model=D,
            d_ff=F,
            d_kv=K,
            num_heads=H,
            num_layers=4,
            init_scale=0.1,
            activation="geglu",
            tied_embeddings=False,
            vocab_size=256,
        ),
        num_experts=16,
    )
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(init(config)):
        name = path[-1].key
        copies = leaf.shape[0] if "blocks" in [key.key for key in path] else 1
        found.setdefault(name, []).extend(np.array(leaf, np.float64).reshape(copies, -1))
    return found


def test_every_kind_of_parameter_is_known(initial):
    assert set(initial) == set(EXPECTED) | {"scale_D"}
    assert all(np.all(scale == 1) for scale in initial["scale_D"])


@pytest.mark.parametrize("name", EXPECTED)
def test_initial_statistics(initial, name):
    """Not corrected for truncation: the deviation is then 0.8796 of the nominal one."""
    sigma, truncated = EXPECTED[name]
    values = np.concatenate(initial[name])
    n = values.size
    deviation = 0.87963 * sigma if truncated else sigma
    assert abs(values.mean()) < 5 * deviation / np.sqrt(n)
    assert abs(values.std() / deviation - 1) < 5 / np.sqrt(2 * n)
    most = np.abs(values).max()
    assert (1.9 * sigma < most <= 2 * sigma) if truncated else most > 2.2 * sigma


def test_routers_have_an_initial_scale_of_their_own():
    """Four times the model's: the same draws, twice as large, and nothing else changes."""
    config = tiny_config(init_scale=0.1, num_decoder_layers=0)
    models, own = init(config), init(with_switch(config, router_init_scale=0.4))
    for path, leaf in jax.tree_util.tree_leaves_with_path(own):
        factor = 2.0 if path[-1].key == "kernel_DE" else 1.0
        expected = factor * functools.reduce(lambda found, key: found[key.key], path, models)
        np.testing.assert_allclose(leaf, expected, rtol=1e-6, err_msg=str(path))


def test_blocks_and_experts_start_different(initial):
    for name, copies in initial.items():
        if name != "scale_D":
            assert len({copy.tobytes() for copy in copies}) == len(copies), name
    per_expert = initial["wi_EDF"][0].reshape(16, -1)
    assert np.abs(np.corrcoef(per_expert) - np.eye(16)).max() < 0.1


def test_seeds_differ_and_repeat():
    draw = jax.jit(Model.of(tiny_config(num_decoder_layers=0)).init)
    a, b, again = (draw(jax.random.key(seed)) for seed in (0, 1, 0))
    same = jax.tree.map(np.array_equal, a, b)
    assert not any(
        value
        for path, value in jax.tree_util.tree_leaves_with_path(same)
        if path[-1].key != "scale_D"
    )
    jax.tree.map(np.testing.assert_array_equal, a, again)


def test_shapes_are_those_of_init_and_axes_name_every_dimension():
    model = Model.of(tiny_config())
    params = init(model.config)
    describe = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype.name), tree)  # noqa: E731
    assert describe(params) == describe(model.shapes)
    is_axes = lambda leaf: isinstance(leaf, tuple)  # noqa: E731
    jax.tree.map(
        lambda axes, shape: np.testing.assert_equal(len(axes), len(shape.shape)),
        model.axes,
        model.shapes,
        is_leaf=is_axes,
    )
    assert {leaf.dtype.name for leaf in jax.tree.leaves(model.shapes)} == {"float32"}
