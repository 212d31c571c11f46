"""The feed-forwards' activations by name: what they compute, and whether they are gated."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from switchx.model.remat import held

Function = Callable[[jax.Array], jax.Array]

_gelu_tanh: Function = functools.partial(jax.nn.gelu, approximate=True)
_gelu_erf: Function = functools.partial(jax.nn.gelu, approximate=False)


@jax.custom_vjp
def relu(x: jax.Array) -> jax.Array:
    """max(x, 0), whose gradient is taken by its result.

    So no more is kept for the backward pass than what is multiplied next. Left to itself, XLA's
    TPU compiler keeps x too, or packs the signs into bits, each at more than a product's cost.
    """
    return jnp.maximum(x, 0)


def _relu_fwd(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    y = relu(x)
    return y, y


def _relu_bwd(y: jax.Array, dy: jax.Array) -> tuple[jax.Array]:
    return (jnp.where(held(y) > 0, dy, 0),)  # or the signs are computed, and packed, at once


relu.defvjp(_relu_fwd, _relu_bwd)


@dataclasses.dataclass(frozen=True)
class Activation:
    """f(x wi), or f(x gate) * (x wi) where it is gated (Shazeer 2020, GLU variants)."""

    function: Function
    gated: bool = False


# There are two GELUs: x Phi(x) itself, by the error function, and its approximation by a tanh
# (Hendrycks and Gimpel 2016), which T5 1.1 was trained with.
ACTIVATIONS = {
    "relu": Activation(relu),
    "gelu_tanh": Activation(_gelu_tanh),
    "gelu_erf": Activation(_gelu_erf),
    "silu": Activation(jax.nn.silu),
    "reglu": Activation(relu, gated=True),
    "geglu": Activation(_gelu_tanh, gated=True),
    "geglu_erf": Activation(_gelu_erf, gated=True),
    "swiglu": Activation(jax.nn.silu, gated=True),
}


def is_gated(name: str) -> bool:
    """Whether the activation of this name has a gate, and so a third matrix."""
    return ACTIVATIONS[name].gated
