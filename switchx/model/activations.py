"""The feed-forwards' activations by name: what they compute, and whether they are gated."""

import dataclasses
import functools
from collections.abc import Callable

import jax

Function = Callable[[jax.Array], jax.Array]

_gelu_tanh: Function = functools.partial(jax.nn.gelu, approximate=True)
_gelu_erf: Function = functools.partial(jax.nn.gelu, approximate=False)


@dataclasses.dataclass(frozen=True)
class Activation:
    """f(x wi), or f(x gate) * (x wi) where it is gated (Shazeer 2020, GLU variants)."""

    function: Function
    gated: bool = False


# There are two GELUs: x Phi(x) itself, by the error function, and its approximation by a tanh
# (Hendrycks and Gimpel 2016), which T5 1.1 was trained with.
ACTIVATIONS = {
    "relu": Activation(jax.nn.relu),
    "gelu_tanh": Activation(_gelu_tanh),
    "gelu_erf": Activation(_gelu_erf),
    "silu": Activation(jax.nn.silu),
    "reglu": Activation(jax.nn.relu, gated=True),
    "geglu": Activation(_gelu_tanh, gated=True),
    "geglu_erf": Activation(_gelu_erf, gated=True),
    "swiglu": Activation(jax.nn.silu, gated=True),
}


def is_gated(name: str) -> bool:
    """Whether the activation of this name has a gate, and so a third matrix."""
    return ACTIVATIONS[name].gated
