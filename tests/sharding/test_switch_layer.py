"""The switch layer alone on eight devices: the same numbers, and only the collectives it needs."""

import functools
import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding

from switchx.model.experts import Experts
from switchx.model.switch_layer import Grouping, SwitchLayer
from switchx.sharding import MeshConfig, batch_sharding, make_mesh, spec
from tests.helpers import jit, noise, random_mask, tiny_config, with_switch

# 16 groups of 16 tokens: two for each device. 8 experts, widths that no other dimension has.
B, L, D, F, E = 16, 16, 24, 40, 8
MESHES = [(2, 4, 1), (1, 8, 1), (2, 2, 2)]
CASES = [(name, mesh) for name in ("einsum", "index") for mesh in MESHES]


def inputs():
    rng = np.random.default_rng(0)
    x_BLD = rng.normal(size=(B, L, D)).astype(np.float32)
    return jnp.asarray(x_BLD), jnp.asarray(random_mask(rng, B, L)), noise(B)


@functools.cache
def layer(dispatcher):
    config = with_switch(
        tiny_config(d_model=D, d_ff=F, dropout_rate=0.1), num_experts=E, dispatcher=dispatcher
    )
    rngs = nnx.Rngs(params=0)
    return nnx.split(SwitchLayer(config, Experts(config, rngs), rngs))


def forward(dispatcher):
    """(parameters, x, mask, noise) to the output and the statistics, as in training."""
    graphdef, _ = layer(dispatcher)
    return lambda state, x, mask, keys: nnx.merge(graphdef, state)(
        x, mask, Grouping(16, 3, False), keys
    )


def backward(dispatcher):
    """The same to a loss of both, and its gradients by parameters and x."""

    def loss(*arguments):
        y_BLD, stats = forward(dispatcher)(*arguments)
        return jnp.sum(jnp.sin(y_BLD)) + stats.balance_loss + stats.z_loss

    return jax.value_and_grad(loss, argnums=(0, 1))


@functools.cache
def on_mesh(make, dispatcher, sizes):
    """The compiled function on a mesh of these sizes, and what it returns."""
    _, state = layer(dispatcher)
    mesh = make_mesh(MeshConfig(*sizes))
    shardings = jax.tree.map(
        lambda param: NamedSharding(mesh, spec(*param.axes)),
        state,
        is_leaf=lambda leaf: isinstance(leaf, nnx.Variable),
    )
    batch = batch_sharding(mesh)
    with jax.set_mesh(mesh):
        sharded = jit(make(dispatcher), in_shardings=(shardings, batch, batch, batch))
        arguments = jax.device_put((state, *inputs()), (shardings, batch, batch, batch))
        compiled = sharded.lower(*arguments).compile()
        return compiled, compiled(*arguments)


@functools.cache
def on_one_device(make):
    """By the other dispatcher than half of the cases, so that they are held to each other too."""
    return jit(make("einsum"))(layer("einsum")[1], *inputs())


COLLECTIVE = re.compile(
    r"= (.*) (all-to-all|all-gather|all-reduce|reduce-scatter|collective-permute)(?:-start)?\("
)


def collectives(compiled):
    """(kind, sizes of the arrays it yields) of every collective in the compiled program."""
    found = []
    for types, kind in COLLECTIVE.findall(compiled.as_text()):
        shapes = re.findall(r"\w+\[([\d,]*)\]", types)
        found.append((kind, [[int(n) for n in shape.split(",") if n] for shape in shapes]))
    return found


@pytest.mark.parametrize(("dispatcher", "sizes"), CASES)
@pytest.mark.parametrize("make", [forward, backward])
def test_the_same_as_on_one_device(make, dispatcher, sizes):
    _, found = on_mesh(make, dispatcher, sizes)
    found, expected = map(jax.tree.leaves, (found, on_one_device(make)))
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(("dispatcher", "sizes"), CASES)
@pytest.mark.parametrize(("make", "exchanges"), [(forward, 2), (backward, 4)])
def test_tokens_move_by_all_to_alls_alone(make, exchanges, dispatcher, sizes):
    found = collectives(on_mesh(make, dispatcher, sizes)[0])
    assert Counter(kind for kind, _ in found)["all-to-all"] == exchanges
    # Each all-to-all carries one device's slots of all experts, [G, E, C, D] in all.
    for kind, shapes in found:
        if kind == "all-to-all":
            assert sum(map(np.prod, shapes)) == 16 * E * 3 * D // np.prod(sizes[:2])
    # What is gathered or permuted is keys of the noise, a number per row: no tokens, no
    # probabilities, no weights.
    for kind, shapes in found:
        if kind in ("all-gather", "collective-permute"):
            assert all(len(shape) == 1 and shape[0] <= B for shape in shapes), (kind, shapes)
    # Sums: of statistics and gradients of weights over their copies, and, where d_ff is shared
    # out, of what the experts put out (and the gradient of what they take in).
    partial = [shape for kind, shapes in found if kind == "all-reduce" for shape in shapes]
    tokens = [shape for shape in partial if len(shape) == 4]
    assert len(tokens) == (exchanges // 2 if sizes[2] > 1 else 0)
    assert not any(kind == "reduce-scatter" for kind, _ in found)


@pytest.mark.parametrize("sizes", MESHES)
def test_each_device_holds_its_experts_only(sizes):
    _, state = layer("index")
    mesh = make_mesh(MeshConfig(*sizes))
    wi = state["experts"]["wi_EDF"]
    held = NamedSharding(mesh, spec(*wi.axes)).shard_shape(wi[...].shape)
    assert held == (E // sizes[1], D, F // sizes[2])
