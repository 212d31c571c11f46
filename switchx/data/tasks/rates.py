"""A mixture that gin makes, as plain values: its tasks, how often each comes, and from when on."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn

from switchx.checks import is_number, is_whole
from switchx.errors import UserError

BY_EXAMPLES = "rate_num_examples"  # as the package t5 calls it
Rate = float | str


def given_rates(tasks: Any) -> dict[str, Rate]:
    """MIXTURE_TASKS as a rate of each task, a number or BY_EXAMPLES.

    Raises:
      UserError: it is no such thing.
    """
    given = f"MIXTURE_TASKS={tasks!r}"
    by_name = isinstance(tasks, Mapping)
    if not tasks or not (by_name or isinstance(tasks, Sequence)) or isinstance(tasks, str):
        _refuse_tasks(given)
    if not all(isinstance(name, str) and name for name in tasks):
        _refuse_tasks(given)
    twice = [name for name in tasks if not by_name and list(tasks).count(name) > 1]
    if twice:
        raise UserError(f"{given} names {twice[0]!r} twice: name each task once.")
    rates = dict(tasks) if by_name else dict.fromkeys(tasks, BY_EXAMPLES)
    for name, rate in rates.items():
        _check_rate(name, rate)
    return rates


def _refuse_tasks(given: str) -> NoReturn:
    raise UserError(
        f"{given} is no mixture: name its tasks, as in ('a', 'b'), or give their rates, as in "
        "{'a': 1.0, 'b': 2.0}."
    )


def _check_rate(name: str, rate: Any) -> None:
    if rate == BY_EXAMPLES:
        return
    if not is_number(rate) or not 0 < rate < math.inf:
        raise UserError(
            f"MIXTURE_TASKS[{name!r}]={rate!r} is no rate: give a number above 0 or "
            f"{BY_EXAMPLES!r}, or leave the task out."
        )


def check_scaling(temperature: Any, maximum: Any) -> None:
    """Raises UserError where MIXTURE_TEMPERATURE or MIXTURE_MAXIMUM is no such number."""
    if not is_number(temperature) or not 0 < temperature < math.inf:
        raise UserError(
            f"MIXTURE_TEMPERATURE={temperature!r} is no temperature: give a number above 0; "
            "rates are numbers of examples to the power of 1 / it."
        )
    if maximum is not None and (not is_number(maximum) or not maximum > 0):
        raise UserError(
            f"MIXTURE_MAXIMUM={maximum!r} is no number of examples: give one above 0, or None."
        )


def check_scaled(rates: Mapping[str, Rate], temperature: float, maximum: float | None) -> None:
    """Raises UserError where one of the two is set and has nothing to scale.

    Args:
      rates: of a mixture that gin makes; {} where it makes none.
    """
    for setting, value, default in (
        ("MIXTURE_TEMPERATURE", temperature, 1.0),
        ("MIXTURE_MAXIMUM", maximum, None),
    ):
        if value != default and BY_EXAMPLES not in rates.values():
            raise UserError(
                f"{setting}={value!r} is for rates by numbers of examples, and MIXTURE_TASKS has "
                f"none: name tasks there without rates, or leave {setting} at {default!r}."
            )


def by_examples(examples: float, temperature: float, maximum: float | None) -> float:
    """min(examples, maximum) to the 1 / temperature (Raffel et al. 2020, section 3.5.2)."""
    return min(examples, maximum or math.inf) ** (1 / temperature)


def no_number_of(mixture: str) -> UserError:
    """The error for a mixture that MIXTURE_TASKS names without a rate."""
    return UserError(
        f"MIXTURE_TASKS names {mixture!r}, a mixture, which has no number of examples of its own: "
        f"give its rate, as in {{{mixture!r}: 1.0}}."
    )


def check_starts(starts: Any) -> None:
    """Raises UserError where MIXTURE_STARTS is no step for each of some tasks."""
    if starts is None:
        return
    if not isinstance(starts, Mapping) or not all(isinstance(name, str) for name in starts):
        raise UserError(
            f"MIXTURE_STARTS={starts!r} names no steps: give that of each task that joins late, as "
            "in {'a': 10000}."
        )
    for name, step in starts.items():
        if not is_whole(step) or step < 0:
            raise UserError(
                f"MIXTURE_STARTS[{name!r}]={step!r} is no step: give a whole number of at least 0."
            )


def starts_of(starts: Mapping[str, int] | None, tasks: Collection[str], mixture: str) -> list[int]:
    """The step at which each task of a mixture begins to come.

    Args:
      tasks: those with a rate above 0.
      mixture: its name.

    Raises:
      UserError: a task that is named is none of them, or all of them wait.
    """
    given = f"MIXTURE_STARTS={dict(starts or {})}"
    unknown = sorted(set(starts or {}) - set(tasks))
    if unknown:
        raise UserError(
            f"{given} names {unknown[0]!r}, and MIXTURE_OR_TASK_NAME={mixture!r} trains on "
            f"{_listed(tasks)}: name some of these."
        )
    found = [(starts or {}).get(task, 0) for task in tasks]
    if min(found):
        raise UserError(
            f"{given} lets all tasks of MIXTURE_OR_TASK_NAME={mixture!r} wait, and the first step "
            "would have no example: leave one of them out."
        )
    return found


def _listed(tasks: Collection[str]) -> str:
    first = ", ".join(map(repr, list(tasks)[:8]))
    return f"{first} and {len(tasks) - 8} more" if len(tasks) > 8 else first
