"""What a TPU does for products of rows sorted by expert: kernels, counted as what they compute."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies

from switchx.model import NO_NOISE, Model
from switchx.model.dispatch.sorted_product import sorted_product, sorted_relu_network
from switchx.model.switch_layer import Grouping
from switchx.planning.chips import CHIPS
from switchx.planning.cycles import costliest, costs
from switchx.planning.network import Network
from switchx.planning.products import Counter
from switchx.sharding import MeshConfig, make_mesh
from tests.helpers import init, tiny_config, with_switch

pytest.importorskip("libtpu")

# Rows begin and end within blocks of 128, and kernels are no whole number of vectors.
E, SHARE, D, F = 4, 100, 160, 256
EACH = 2 * E * SHARE * D * F


@pytest.fixture(scope="module")
def traced():
    def run(x_RD, kernel_EDF, size_E):
        product = lambda x, kernel: sorted_product(x, kernel, size_E, SHARE)  # noqa: E731
        y_RF, back = jax.vjp(product, x_RD, kernel_EDF)
        return y_RF, *back(y_RF)

    kernel = (E, D, F), jnp.bfloat16
    return trace(run, ((2 * E * SHARE, D), jnp.bfloat16), kernel, ((E,), jnp.int32))


def trace(run, *shapes):
    """For one chip."""
    mesh = make_mesh(MeshConfig(), topologies.get_topology_desc("v5e:2x2", "tpu").devices[:1])
    with jax.set_mesh(mesh):
        place = jax.NamedSharding(mesh, jax.P())
        return jax.jit(run).trace(
            *(jax.ShapeDtypeStruct(*shape, sharding=place) for shape in shapes)
        )


def test_blocks_that_experts_share_count_for_each(traced):
    row_R = np.arange(E * SHARE)
    blocks = sum(len(np.unique(rows // 128)) for rows in row_R.reshape(E, SHARE))
    assert Counter("tpu", whole_blocks=False).count(traced.jaxpr) == 3 * EACH
    whole = Counter("tpu", whole_blocks=True).count(traced.jaxpr)
    assert whole == 3 * EACH * blocks * 128 // (E * SHARE)


def test_a_compiled_program(traced):
    """Three kernels, no loop over experts, and no cycles but those that they say of themselves."""
    text = traced.lower().compile().as_text()
    assert text.count('custom_call_target="tpu_custom_call"') == 3
    assert " while(" not in text
    chip = CHIPS["v5e"]
    products = of_one_chip(text)["products"]
    assert (products.unpriced, products.cycles) == (3, 0)
    assert products.priced > 3 * EACH / chip.peak_flops("bfloat16") * chip.clock


def of_one_chip(text):
    network = Network({"data": 1}, np.zeros(1, int), np.empty((1, 0)), (), 1.0, np.inf)
    return costs(text, CHIPS["v5e"], network)


def test_a_compiled_network():
    """Without a pass over interim rows beside its six kernels."""

    def run(x_RD, wi_EDF, wo_EFD, size_E):
        network = lambda *arrays: sorted_relu_network(*arrays, size_E, SHARE)  # noqa: E731
        y_RD, back = jax.vjp(network, x_RD, wi_EDF, wo_EFD)
        return y_RD, *back(y_RD)

    arrays = (8 * E * SHARE, 256), (E, 256, 128), (E, 128, 256)
    text = trace(run, *((shape, jnp.bfloat16) for shape in arrays), ((E,), jnp.int32))
    text = text.lower().compile().as_text()
    assert of_one_chip(text)["products"].unpriced == 6
    others = [shape for *_, part, shape, _ in costliest(text, CHIPS["v5e"]) if part != "products"]
    assert others  # of where experts' rows begin
    assert not any("f32[" in shape or "bf16[" in shape for shape in others)


def test_a_compiled_loop_over_layers():
    """No copies of experts' float32 matrices: read, and their gradients written, in the stacks."""
    config = tiny_config(d_model=128, d_ff=256, num_decoder_layers=0, dtype="bfloat16")
    config = with_switch(config, every=1, dispatcher="ragged")
    model, shapes = Model.of(config), jax.eval_shape(lambda: init(config))
    groups = Grouping.of(config.switch, causal=False, train=True)

    def loss(params, token_BM):
        encoded_BMD, *_ = model.bind(params).encode(token_BM, groups, NO_NOISE)
        return jnp.sum(jnp.sin(encoded_BMD.astype(jnp.float32)))

    tokens = (8, 16), jnp.int32
    leaves, treedef = jax.tree.flatten(shapes)
    run = lambda token_BM, *leaves: jax.grad(loss)(treedef.unflatten(leaves), token_BM)  # noqa: E731
    traced = trace(run, tokens, *((leaf.shape, leaf.dtype) for leaf in leaves))
    text = traced.lower().compile().as_text()
    own = [row for row in costliest(text, CHIPS["v5e"]) if MATRICES.search(row[3])]
    assert [times for _, times, *_ in own] == [2, 2]  # of both layers, wi's and wo's
    assert {part for *_, part, _, _ in own} == {"products"}


MATRICES = re.compile(r"f32\[(2,4|8),(128,256|256,128)\]")
