"""Attention by blocks, of TPUs and of GPUs, against whole arrays; interpreted where it must be."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switchx.model.attention import Visibility, attend, blocked, triton, whole
from switchx.model.attention.blocked import tiles
from switchx.sharding import MeshConfig, make_mesh

NAMES = ("y", "dquery", "dkey", "dvalue", "dbias")


@dataclasses.dataclass(frozen=True)
class Case:
    """What attends to what, and which of it is known; in blocks of 16 or 8."""

    H: int
    L: int
    M: int
    K: int
    biased: bool = True
    causal: bool = False
    queries: bool = False
    keys: bool = True
    rows: int = 3

    def operands(self, dtype):
        rng, B = np.random.default_rng(self.L), self.rows
        shapes = [(B, self.L), (B, self.M), (B, self.M), (B, self.L)]
        query, key, value, dy = (
            jnp.asarray(rng.normal(size=(*shape, self.H, self.K)) / 2, dtype) for shape in shapes
        )
        bias_HW = jnp.asarray(rng.normal(size=(self.H, self.L + self.M - 1)), jnp.float32)
        visibility = Visibility(
            jnp.asarray(rng.integers(1, 3, (B, self.L))) if self.queries else None,
            # Segment 0 is padding; now and then a query of row 1 finds nobody.
            jnp.asarray(rng.integers(0, 3, (B, self.M))) if self.keys else None,
            self.causal,
        )
        return (query, key, value, bias_HW if self.biased else None, visibility), dy


CASES = [
    Case(H=4, L=16, M=16, K=64),
    Case(H=2, L=14, M=14, K=64, causal=True, queries=True),
    Case(H=4, L=14, M=32, K=64, biased=False, queries=True),
    Case(H=4, L=32, M=32, K=64, queries=True),
    Case(H=2, L=32, M=32, K=64, causal=True, queries=True),
    Case(H=8, L=24, M=24, K=32, causal=True, keys=False),
    Case(H=2, L=40, M=40, K=64),
    Case(H=2, L=12, M=24, K=128, biased=False, keys=False),
]


KERNELS = pytest.mark.parametrize("kernels", [blocked, triton], ids=["tpu", "gpu"])


def computed(form, operands, dy):
    y, log_sum = form.forward(*operands)
    return y, *form.backward(*operands, y, log_sum, dy)


@pytest.fixture
def small_blocks(monkeypatch):
    for name, length in {"_BLOCK": 16, "_SMALL": 8, "_LONG": 32, "_LONGEST": 40}.items():
        monkeypatch.setattr(tiles, name, length)
    monkeypatch.setattr(triton, "_QUERIES", 16)
    monkeypatch.setattr(triton, "_KEYS", 16)


@KERNELS
@pytest.mark.parametrize("case", CASES, ids=str)
def test_blocks_equal_whole_arrays(case, kernels, small_blocks):
    assert blocked.fits(case.H, case.L, case.M, case.K, case.biased)
    assert triton.fits(case.K)
    operands, dy = case.operands(jnp.float32)
    found, expected = (
        jax.jit(computed, static_argnums=0)(form, operands, dy) for form in (kernels, whole)
    )
    for name, a, b in zip(NAMES, found, expected, strict=True):
        if b is None:
            assert a is None
            continue
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6 * np.abs(b).max(), err_msg=name)


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        ((3, 16, 16, 64, False), "three heads of 64 do not fill vectors of 128"),
        ((4, 16, 16, 48, False), "nor do heads of 48"),
        ((4, 20, 20, 64, False), "20 is longer than a block and no number of blocks"),
        ((4, 48, 48, 64, False), "48 is too long"),
        ((4, 16, 24, 64, True), "a bias is of a sequence to itself"),
    ],
)
def test_what_cannot_be_cut_up(shape, why, small_blocks):
    assert not blocked.fits(*shape), why


@KERNELS
@pytest.mark.parametrize(
    ("sizes", "case"),
    [((1, 1, 1), CASES[3]), ((2, 2, 2), CASES[3]), ((2, 2, 2), CASES[2])],
    ids=str,
)
def test_on_a_mesh(sizes, case, kernels, small_blocks, monkeypatch):
    """In a loop over rematerialised layers, as a stack has it."""
    (*arrays, visibility), dy = dataclasses.replace(case, rows=8).operands(jnp.float32)
    of = range(4 if case.biased else 3)

    def loss(query, key, value, bias_HW):
        @jax.checkpoint
        def layer(query, _):
            y = attend.attend(query, key, value, bias_HW, visibility)
            return y.reshape(query.shape), None

        return jnp.sum(jax.lax.scan(layer, query, length=2)[0] * dy)

    expected = jax.jit(jax.grad(loss, of))(*arrays)
    monkeypatch.setattr(attend, "from_v5_on", lambda: True)
    monkeypatch.setattr(attend, "platform", lambda: "gpu" if kernels is triton else "tpu")
    monkeypatch.setattr(attend, "whole", None)
    with jax.set_mesh(make_mesh(MeshConfig(*sizes), jax.devices()[: math.prod(sizes)])):
        found = jax.jit(jax.grad(lambda *arrays: loss(*arrays), of))(*arrays)
    for name, a, b in zip(NAMES[1:], found, expected, strict=False):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6 * np.abs(b).max(), err_msg=name)
