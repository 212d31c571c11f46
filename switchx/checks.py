"""Checks of settings: each refusal names the setting, its value and what is accepted."""

import math
from collections.abc import Collection
from typing import Any, TypeGuard

from switchx.errors import UserError

LEAST, MOST = 1.2e-38, 3.4e38  # of float32: denormal numbers are 0 on accelerators
_BELOW_ONE = 1 - 2**-24  # the largest of float32

# What a sweep's gin file may say, and its sweep.json, which is read without gin.
ON_FAILURE = ("go_on", "stop")
ORDERS = ("longest", "listed")
COUNTED = ("logits", "router")

_TRANSFERS = (
    ("disallow", "disallow_explicit"),
    "refuses that batches get to devices and figures from them",
)
# JAX's own, from Python or by the environment, that no run can be computed with, and why.
UNFIT: dict[str, tuple[tuple[bool | str, ...], str]] = {
    "jax_enable_x64": ((True,), "makes arrays of 64 bits, and the arrays of a run have 32"),
    "jax_disable_jit": ((True,), "keeps JAX from compiling, and steps are compiled"),
    "jax_numpy_rank_promotion": (("raise",), "refuses products of arrays of unequal ranks"),
    "jax_numpy_dtype_promotion": (("strict",), "refuses sums of arrays of unequal types"),
    "jax_transfer_guard": _TRANSFERS,
    "jax_transfer_guard_host_to_device": _TRANSFERS,
    "jax_transfer_guard_device_to_device": _TRANSFERS,
    "jax_transfer_guard_device_to_host": _TRANSFERS,
}


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether it is a whole number; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether it is a number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def at_least(name: str, value: Any, least: int) -> None:
    """Raises UserError unless `value` is a whole number from `least` up."""
    if not is_whole(value) or value < least:
        raise UserError(f"{name}={value!r} must be a whole number of at least {least}.")


def above_zero(name: str, value: Any, or_none: bool = False) -> None:
    """Raises UserError unless `value` is positive and finite, or None where that is accepted."""
    if or_none and value is None:
        return
    if not is_number(value) or not 0 < value < math.inf:
        raise UserError(f"{name}={value!r} must be above 0{', or None' if or_none else ''}.")
    _within_float32(name, value)


def from_zero(name: str, value: Any, most: float | None = None) -> None:
    """Raises UserError unless `value` is 0 or above, and at most `most`."""
    if not is_number(value) or not 0 <= value < math.inf or (most is not None and value > most):
        upto = "" if most is None else f", up to {most:g}"
        raise UserError(f"{name}={value!r} must be a number of at least 0{upto}.")
    _within_float32(name, value)


def _within_float32(name: str, value: float) -> None:
    """Else what is computed with would be infinite, or 0 though another number was asked for."""
    if value and not LEAST <= value <= MOST:
        raise UserError(f"{name}={value!r} must be from {LEAST} to {MOST}, as float32 holds it.")


def below_one(name: str, value: Any) -> None:
    """Raises UserError unless `value` is a share that leaves something, in float32 too."""
    if not is_number(value) or not 0 <= value <= _BELOW_ONE:
        raise UserError(f"{name}={value!r} must be at least 0 and below 1, as float32 holds it.")
    _within_float32(name, value)


def one_of(name: str, value: Any, accepted: Collection[Any]) -> None:
    """Raises UserError unless `value` is among the accepted."""
    if value not in accepted:
        raise UserError(f"{name}={value!r} is not one of {', '.join(map(str, accepted))}.")
