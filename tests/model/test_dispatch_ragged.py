"""The product of sorted rows with each expert's kernel: against plain loops, in all its forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switchx.model.dispatch.sorted_product import product, sorted_product
from switchx.model.dispatch.sorted_triton import Tiles
from tests.helpers import jit

BY_PLATFORM = functools.partial(sorted_product, share=100)
ON_A_GPU = functools.partial(product, Tiles(100, "highest"))

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


# ragged_dot is what runs where the platform has a program for it.
@pytest.mark.parametrize(
    ("product", "D", "F"),
    [(BY_PLATFORM, 3, 5), (jax.lax.ragged_dot, 3, 5), (ON_A_GPU, 130, 200)],
)
def test_the_product_of_each_experts_rows(product, D, F):
    rng = np.random.default_rng(0)
    x_RD, dy_RF = (rng.normal(size=(ROWS, n)).astype(np.float32) for n in (D, F))
    kernel_EDF = rng.normal(size=(6, D, F)).astype(np.float32)

    @jit
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
