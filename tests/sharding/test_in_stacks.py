"""Experts' kernels in the stacks of all layers: the same gradients as of each layer's own."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

from switchx.model import Model, experts, in_stacks
from switchx.model.dispatch import packed, sorted_experts
from switchx.model.switch_layer import Grouping
from switchx.sharding import MeshConfig, batch_sharding, make_mesh
from tests.helpers import init, noise, random_inputs, tiny_config, with_switch

BATCH = 8
RAGGED = {"dispatcher": "ragged", "num_experts": 8}
CASES = {
    "pools": (RAGGED | {"ragged_pools": 4}, {"remat": "dots"}, (1, 4, 2)),
    "packed": ({}, {"activation": "geglu", "dropout_rate": 0.3, "scan": False}, (1, 2, 1)),
    "widths": (RAGGED | {"expert_widths": ((4, 16), (4, 40))}, {"remat": "full"}, (1, 1, 1)),
}


def gradients(name, frozen=""):
    """The traced program, and its gradients of all parameters but those of this name."""
    switch, changes, sizes = CASES[name]
    config = tiny_config(num_layers=2, num_decoder_layers=0, **changes)
    config = with_switch(config, **{"every": 1, "num_experts": 4, **switch})
    model, params = Model.of(config), init(config)
    token_BM, keys = random_inputs(batch=BATCH).encoder_token_BM, noise(BATCH)
    groups = Grouping.of(config.switch, causal=False, train=True)
    paths, treedef = jax.tree.flatten_with_path(params)
    names = [jax.tree_util.keystr(path) for path, _ in paths]
    trained = [not frozen or frozen not in name for name in names]

    def loss(chosen, others, token_BM, keys):
        chosen, others = iter(chosen), iter(others)
        params = treedef.unflatten(next(chosen if own else others) for own in trained)
        encoded_BMD, *_ = model.bind(params).encode(token_BM, groups, keys)
        return jnp.mean(jnp.sin(jnp.cumsum(encoded_BMD, axis=-1)))

    mesh = make_mesh(MeshConfig(*sizes), jax.devices()[: np.prod(sizes)])
    with jax.set_mesh(mesh):
        whole = NamedSharding(mesh, jax.P())
        leaves = jax.device_put([leaf for _, leaf in paths], whole)
        split = [[x for x, own in zip(leaves, trained, strict=True) if own == k] for k in (1, 0)]
        arguments = *split, *jax.device_put((token_BM, keys), batch_sharding(mesh))
        traced = jax.jit(jax.grad(loss)).trace(*arguments)
        found = jax.device_get(traced.lower().compile()(*arguments))
    of_trained = (name for name, own in zip(names, trained, strict=True) if own)
    return str(traced.jaxpr), dict(zip(of_trained, found, strict=True))


@pytest.fixture
def on_a_tpu(monkeypatch):
    """What is chosen there, interpreted here."""
    for module in (in_stacks, sorted_experts):
        monkeypatch.setattr(module, "from_v5_on", lambda: True)
    monkeypatch.setattr(experts, "platform", lambda: "tpu")
    monkeypatch.setitem(packed._MOST_FILLED_IN_STACKS, "cpu", 100)


near = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
here = functools.cache(gradients)
WRITTEN = "input_output_aliases=((7, 0),)"


@pytest.fixture(params=CASES)
def name(request):
    here(request.param)  # before anything is as on a TPU
    return request.param


def test_the_same_gradients(name, on_a_tpu):
    program, found = gradients(name)
    assert WRITTEN in program
    assert not re.search(r"f32\[2,\d+,\d+,\d+\] = add_any", program)  # written, never added
    jax.tree.map(near, found, here(name)[1])


@pytest.mark.parametrize("name", ["packed"], indirect=True)
def test_frozen_experts_have_no_gradients(name, on_a_tpu):
    program, found = gradients(name, frozen="experts")
    assert WRITTEN not in program
    _, expected = here(name)
    assert found.keys() == {name for name in expected if "experts" not in name}
    for each in found:
        near(found[each], expected[each])
