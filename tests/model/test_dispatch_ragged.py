"""The product of sorted rows with each expert's kernel: against plain loops, in all its forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from switchx.model import NO_NOISE
from switchx.model.dispatch import sorted_experts, sorted_tiles
from switchx.model.dispatch.sorted_blocks import XlaLoops
from switchx.model.dispatch.sorted_mosaic import MosaicTiles, room
from switchx.model.dispatch.sorted_network import relu_network
from switchx.model.dispatch.sorted_product import product, sorted_product
from switchx.model.dispatch.sorted_triton import TritonTiles
from switchx.sharding import MeshConfig, make_mesh
from tests.helpers import grouping, switch_layer, tiny_config, with_switch

BY_PLATFORM = functools.partial(sorted_product, share=100)
ON_A_GPU = functools.partial(product, TritonTiles(100, "highest"))
ON_A_TPU = functools.partial(product, MosaicTiles(100, "highest"))

# Rows per expert: none, one, several blocks of the CPU's form, exactly one, one more.
SIZES = [[0, 300, 5, 128, 0, 129], [0, 0, 1, 0, 0, 0], [0] * 6, [7, 0, 0, 0, 0, 555]]
ROWS = 600  # more than the sizes' sum: what no expert has


def by_hand(x_RD, kernel_EDF, size_E, dy_RF):
    y_RF, dx_RD, dkernel_EDF = (np.zeros(a.shape) for a in (dy_RF, x_RD, kernel_EDF))
    start = 0
    for e, size in enumerate(size_E):
        at = slice(start, start + size)
        y_RF[at] = x_RD[at] @ kernel_EDF[e]
        dx_RD[at] = dy_RF[at] @ kernel_EDF[e].T
        dkernel_EDF[e] = x_RD[at].T @ dy_RF[at]
        start += size
    return y_RF, dx_RD, dkernel_EDF


@pytest.fixture
def small_tiles(monkeypatch):
    """Several tiles of rows, of several blocks, and several of outputs."""
    for name, value in {"_BLOCK": 32, "_ROWS": (128, 64), "_TILES": 400_000}.items():
        monkeypatch.setattr(sorted_tiles, name, value)
    for cached in (sorted_tiles.of_rows, sorted_tiles.of_outer):
        monkeypatch.setattr(sorted_tiles, cached.__name__, cached.__wrapped__)


# ragged_dot is what runs where the platform has a program for it.
@pytest.mark.parametrize(
    ("product", "D", "F"),
    [
        (BY_PLATFORM, 3, 5),
        (jax.lax.ragged_dot, 3, 5),
        (ON_A_GPU, 130, 200),
        (ON_A_TPU, 130, 200),
        (ON_A_TPU, 128, 200),  # whose kernels are taken turned
    ],
)
def test_the_product_of_each_experts_rows(product, D, F, small_tiles):
    rng = np.random.default_rng(0)
    x_RD, dy_RF = (rng.normal(size=(ROWS, n)).astype(np.float32) for n in (D, F))
    kernel_EDF = rng.normal(size=(6, D, F)).astype(np.float32)

    @jax.jit
    def run(size_E):
        y_RF, back = jax.vjp(lambda x, kernel: product(x, kernel, size_E), x_RD, kernel_EDF)
        return y_RF, *back(dy_RF)

    for sizes in SIZES:
        found = jax.device_get(run(jnp.asarray(sizes, jnp.int32)))
        assert all(np.isfinite(a).all() for a in found)
        expected = by_hand(*(a.astype(np.float64) for a in (x_RD, kernel_EDF)), sizes, dy_RF)
        rows = sum(sizes)
        for a, b in zip((*(a[:rows] for a in found[:2]), found[2]), expected, strict=True):
            np.testing.assert_allclose(a, b[:rows] if len(b) == ROWS else b, rtol=1e-4, atol=1e-5)


# What is trained: x, wi and wo, or some of them.
@pytest.mark.parametrize("trained", [(0, 1, 2), (0,), (1,), (2,)])
def test_a_network_with_its_relu(trained, small_tiles):
    """Its output, its tangent and its gradients, the rest being frozen."""
    rng = np.random.default_rng(4)
    arrays = [
        rng.normal(size=size).astype(np.float32) for size in ((96, 130), (3, 130, 72), (3, 72, 130))
    ]
    sizes, dy_RD = [40, 0, 33], rng.normal(size=(96, 130)).astype(np.float32)
    dy_RD[73:] = 0  # whose rows no expert has
    x_RD, wi_EDF, wo_EFD = (a.astype(np.float64) for a in arrays)
    z_RF, *_ = by_hand(x_RD, wi_EDF, sizes, np.zeros((96, 72)))
    y_RD, dh_RF, dwo_EFD = by_hand(np.maximum(z_RF, 0), wo_EFD, sizes, dy_RD)
    _, dx_RD, dwi_EDF = by_hand(x_RD, wi_EDF, sizes, dh_RF * (z_RF > 0))

    def run(*chosen):
        given = list(map(jnp.asarray, arrays))
        for number, array in zip(trained, chosen, strict=True):
            given[number] = array
        return relu_network(MosaicTiles(24, "highest"), *given, jnp.asarray(sizes, jnp.int32))

    chosen = [arrays[number] for number in trained]
    found_RD, back = jax.vjp(jax.jit(jax.checkpoint(run)), *chosen)
    near = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
    near(found_RD[:73], y_RD[:73])
    gradients = [(dx_RD, dwi_EDF, dwo_EFD)[number] for number in trained]
    for a, b in zip(back(dy_RD), gradients, strict=True):
        near(a, b)
    # Along each array itself a tangent is that of a product of so many factors.
    _, tangent_RD = jax.jvp(run, chosen, chosen)
    near(tangent_RD[:73], len(trained) * y_RD[:73])


def test_a_layer_by_the_networks_kernels(monkeypatch):
    """The same gradients as by products with ReLU between them."""
    config = with_switch(tiny_config(d_model=24, d_ff=40), num_experts=4, dispatcher="ragged")
    layer, groups = switch_layer(config, 0), grouping(config, 16, None)
    x_BLD = jax.random.normal(jax.random.key(0), (2, 16, 24))

    def gradients():
        graphdef, state = nnx.split(layer)

        def loss(state, x_BLD):
            y_BLD, _ = nnx.merge(graphdef, state)(x_BLD, jnp.ones((2, 16), bool), groups, NO_NOISE)
            return jnp.sum(jnp.sin(y_BLD))

        traced = jax.jit(jax.grad(loss, (0, 1))).trace(state, x_BLD)
        return str(traced.jaxpr), traced.lower().compile()(state, x_BLD)

    _, expected = gradients()
    monkeypatch.setattr(sorted_experts, "from_v5_on", lambda: True)
    text, found = gradients()
    assert text.count("pallas_call") == 6
    near = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    jax.tree.map(near, found, expected)


@pytest.mark.parametrize(("D", "F"), [(130, 200), (128, 200)])
def test_a_layers_part_of_the_stacks(D, F, small_tiles):
    """Read, and written, where it lies, by rows in another dtype; other layers' are left alone."""
    rng, tiles, sizes = np.random.default_rng(5), MosaicTiles(100, None), SIZES[0]
    x_RD, dy_RF = (jnp.asarray(rng.normal(size=(ROWS, n)), jnp.bfloat16) for n in (D, F))
    kernel_LEDF = rng.normal(size=(2, 6, D, F)).astype(np.float32)
    rounded_EDF = jnp.asarray(kernel_LEDF[1], jnp.bfloat16)
    exact = (np.asarray(a, np.float64) for a in (x_RD, rounded_EDF))
    y_RF, dx_RD, dkernel_EDF = by_hand(*exact, sizes, np.asarray(dy_RF, np.float64))
    layer, size_E = jnp.int32(1), jnp.asarray(sizes, jnp.int32)
    found_RF = tiles.rows(x_RD, jnp.asarray(kernel_LEDF), size_E, False, layer=layer)
    found_RD = tiles.rows(dy_RF, jnp.asarray(kernel_LEDF), size_E, True, layer=layer)
    written_LEDF = tiles.outer(x_RD, dy_RF, size_E, room((2, 6, D, F)), layer)
    for found, expected in ((found_RF, y_RF), (found_RD, dx_RD)):
        np.testing.assert_allclose(  # rounded to bfloat16
            np.asarray(found, np.float64)[: sum(sizes)],
            expected[: sum(sizes)],
            rtol=2**-7,
            atol=1e-2,
        )
    assert np.isnan(written_LEDF[0]).all()  # as interpreted room is
    np.testing.assert_allclose(written_LEDF[1], dkernel_EDF, rtol=1e-4, atol=1e-4)


def test_tiles_on_a_mesh(small_tiles):
    """Of experts on two devices, of two arrays in turn, in a loop over rematerialised layers."""
    rng = np.random.default_rng(1)
    x_VRD, dy_VRD = (jnp.asarray(rng.normal(size=(2, 96, 8)), jnp.float32) for _ in range(2))
    kernel_EDD = jnp.asarray(rng.normal(size=(4, 8, 8)), jnp.float32)
    size_VE = jnp.asarray([[20, 0, 10, 30], [1, 47, 0, 7]], jnp.int32)
    expert, rows = jax.P("expert"), jax.P(None, "expert")

    def loss(x_VRD, kernel_EDD, form):
        def layer(x_RD, kernel_EDD, size_E):
            at = jnp.arange(x_RD.shape[0]) < size_E.sum()
            y_RD = jnp.where(at[:, None], product(form, x_RD, kernel_EDD, size_E), 0)
            return jax.nn.relu(y_RD)

        def both(x_VRD, kernel_EDD, size_VE):
            return jnp.stack([layer(x, kernel_EDD, n) for x, n in zip(x_VRD, size_VE, strict=True)])

        layers = jax.shard_map(
            jax.checkpoint(both),
            in_specs=(rows, expert, rows),
            out_specs=rows,
            check_vma=False,
        )
        turn = lambda x_VRD, _: (layers(x_VRD, kernel_EDD, size_VE), None)  # noqa: E731
        return jnp.sum(jax.lax.scan(turn, x_VRD, length=2)[0] * dy_VRD)

    with jax.set_mesh(make_mesh(MeshConfig(1, 2, 1), jax.devices()[:2])):
        found, expected = (
            jax.jit(jax.grad(functools.partial(loss, form=form), (0, 1)))(x_VRD, kernel_EDD)
            for form in (MosaicTiles(24, "highest"), XlaLoops(32, 24, "highest"))
        )
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_gradients_where_one_of_two_alike_has_a_frozen_kernel():
    """Layers that are traced once, of which one needs rows' gradients alone, one its kernels'."""
    rng = np.random.default_rng(2)
    x_RD, dy_RD = (rng.normal(size=(8, 5)).astype(np.float32) for _ in range(2))
    trained_EDD, frozen_EDD = (rng.normal(size=(3, 5, 5)).astype(np.float32) for _ in range(2))
    sizes = (3, 0, 5)
    layer = jax.checkpoint(
        lambda x_RD, kernel_EDD: product(
            XlaLoops(4, 4, "highest"), x_RD, kernel_EDD, jnp.asarray(sizes)
        )
    )
    found = jax.grad(lambda kernel: jnp.vdot(dy_RD, layer(layer(x_RD, kernel), frozen_EDD)))
    h_RD, *_ = by_hand(x_RD, trained_EDD, sizes, dy_RD)
    _, dh_RD, _ = by_hand(h_RD, frozen_EDD, sizes, dy_RD)
    _, _, expected_EDD = by_hand(x_RD, trained_EDD, sizes, dh_RD)
    np.testing.assert_allclose(found(jnp.asarray(trained_EDD)), expected_EDD, rtol=1e-4, atol=1e-5)
