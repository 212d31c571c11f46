"""Products with parameters against NumPy's, forward and backward, and what a loop keeps of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switchx.model.product import product
from switchx.sharding import gathered


# There is less to turn of x, then of dy and the result.
@pytest.mark.parametrize(("R", "D", "F"), [(7, 5, 4), (40, 20, 3)], ids=["narrow", "wide"])
@pytest.mark.parametrize("leading", [(), (3,)], ids=["one", "experts"])
def test_the_gradients_are_the_products_of_the_formula(leading, R, D, F):
    rng = np.random.default_rng(0)
    shapes = (R, D), (D, F), (R, F)
    x, kernel, dy = (rng.normal(size=(*leading, *s)).astype(np.float32) for s in shapes)
    y, pull = jax.vjp(product, jnp.asarray(x), jnp.asarray(kernel))
    np.testing.assert_allclose(y, x @ kernel, rtol=1e-5, atol=1e-5)
    dx, dkernel = pull(jnp.asarray(dy))
    np.testing.assert_allclose(dx, dy @ kernel.swapaxes(-1, -2), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dkernel, x.swapaxes(-1, -2) @ dy, rtol=1e-5, atol=1e-5)


def test_gradients_where_one_of_two_alike_has_a_frozen_kernel():
    """Layers that are traced once, of which one needs rows' gradients alone, one its kernel's."""
    rng = np.random.default_rng(1)
    x, trained, frozen, dy = (rng.normal(size=(6, 6)).astype(np.float32) for _ in range(4))
    layer = jax.checkpoint(lambda x, kernel: product(x, kernel))
    found = jax.grad(lambda kernel: jnp.vdot(dy, layer(layer(x, kernel), frozen)))(trained)
    np.testing.assert_allclose(found, x.T @ (dy @ frozen.T), rtol=1e-5, atol=1e-5)


def test_a_loop_keeps_no_copy_of_its_parameters_for_the_backward_pass():
    """Kernels of two layers, [2, D, D]: the forward loop's only array of that size goes into it."""
    D = 48

    def loss(kernel_NDD, x_RD):
        def body(x_RD, kernel_DD):
            return product(jnp.sin(x_RD), gathered(kernel_DD, ("embed", "embed"))), None

        return jnp.sum(jax.lax.scan(body, x_RD, kernel_NDD)[0] ** 2)

    kernels, x = jnp.ones((2, D, D)), jnp.ones((4, D))
    jaxpr = jax.make_jaxpr(jax.grad(loss))(kernels, x).jaxpr
    forward, *_ = (eqn for eqn in jaxpr.eqns if eqn.primitive.name == "scan")
    assert [out.aval.shape for out in forward.outvars if out.aval.shape == (2, D, D)] == []
