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


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def relu(x: jax.Array, apart: bool = False) -> jax.Array:
    """max(x, 0), whose gradient is taken by its result.

    So no more is kept for the backward pass than what is multiplied next. Left to itself, XLA's
    TPU compiler keeps x too, or packs the signs into bits, each at more than a product's cost.

    Args:
      apart: whether the forward and the backward pass are loops of their own.
    """
    return jnp.maximum(x, 0)


def _relu_fwd(x: jax.Array, apart: bool) -> tuple[jax.Array, jax.Array]:
    y = relu(x)
    return y, y


def _relu_bwd(apart: bool, y: jax.Array, dy: jax.Array) -> tuple[jax.Array]:
    # Held, or the signs are computed, and packed, at once; where they cannot be, that would only
    # copy what the loop has kept.
    return (jnp.where((y if apart else held(y)) > 0, dy, 0),)


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


def function_of(name: str, apart: bool) -> Function:
    """The activation of this name; `apart`: see `relu`."""
    function = ACTIVATIONS[name].function
    return functools.partial(relu, apart=True) if apart and function is relu else function


def is_gated(name: str) -> bool:
    """Whether the activation of this name has a gate, and so a third matrix."""
    return ACTIVATIONS[name].gated
