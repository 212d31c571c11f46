"""Checks of the model's settings that other configurations have nothing like."""

import itertools
from collections.abc import Mapping
from typing import Any

from switchx.errors import UserError


def sparse_layers(name: str, value: Any) -> None:
    """Raises UserError unless `value` says which layers have experts, or is None."""
    if value is None or (type(value) is int and value >= 1):
        return
    numbers = type(value) is tuple and all(type(n) is int and n >= 0 for n in value)
    if not numbers or any(n >= after for n, after in itertools.pairwise(value)):
        raise UserError(
            f"{name}={value!r} must be a whole number n, for every n-th layer, or the layers' "
            "numbers from 0 in a tuple, as in (1, 5), each once and in order."
        )


def widths(name: str, value: Any, num_experts: int) -> None:
    """Raises UserError unless `value` says how wide so many experts are, or is None."""
    if value is None:
        return
    pairs = type(value) is tuple and all(type(each) is tuple and len(each) == 2 for each in value)
    if not value or not pairs or any(type(n) is not int or n < 1 for each in value for n in each):
        raise UserError(
            f"{name}={value!r} must be pairs of a number of experts and their d_ff, whole numbers "
            "of at least 1, as in ((4, 256), (4, 1024))."
        )
    total = sum(number for number, _ in value)
    if total != num_experts:
        raise UserError(
            f"{name}={value!r} are {total} experts, but NUM_EXPERTS={num_experts}: let the numbers "
            "of experts add up to that."
        )


def only(settings: Any, given: str, neutral: Mapping[str, Any], reason: str) -> None:
    """Raises UserError where a setting is used that means nothing beside `given`.

    Args:
      settings: an object with the attributes of SwitchConfig.
      neutral: of each such setting the value that does not use it.
      reason: why, as a clause about `given`.
    """
    for name, unused in neutral.items():
        value = getattr(settings, name)
        if value != unused:
            raise UserError(
                f"SwitchConfig.{name}={value!r} does not go with {given}, {reason}: "
                f"leave it at {unused!r}."
            )
