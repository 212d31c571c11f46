"""Arithmetic over settings: as Python computes it, and nothing else of Python."""

import math
import random
import re

import pytest

from switchx.errors import UserError
from switchx.sweeps.rules import Rule

VALUES = {"A": 12, "B": 5, "RATE": 0.25, "ModelConfig.d_ff": 64, "LENGTHS": {"inputs": 512}}


def value(text):
    return Rule.parse(text, "a rule").value(VALUES.__getitem__)


def expression(rng, depth):
    if depth == 0:
        return rng.choice(["A", "B", "RATE", "3", "0.5", "7"])
    left, right = expression(rng, depth - 1), expression(rng, depth - 1)
    return rng.choice(
        [
            f"({left} {rng.choice(['+', '-', '*', '/', '//', '%'])} {right})",
            f"max({left}, {right}, 1)",
            f"min({left}, -{right})",
            f"({left} if {left} {rng.choice(['<', '>=', '==', '!='])} {right} else {right})",
            f"sqrt(({left}) ** 2)",
            f"round({left})",
        ]
    )


def test_random_expressions_have_the_value_that_python_gives_them():
    rng, compared = random.Random(0), 0
    names = {"sqrt": math.sqrt, "A": 12, "B": 5, "RATE": 0.25}
    for _ in range(500):
        text = expression(rng, 3)
        try:
            expected = eval(text, {"__builtins__": {"max": max, "min": min, "round": round}}, names)
        except ArithmeticError:
            with pytest.raises(UserError, match="has no value"):
                value(text)
            continue
        if math.isfinite(expected):
            assert value(text) == expected
            assert type(value(text)) is type(expected)
            compared += 1
    assert compared > 300


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("LENGTHS['inputs'] * A // 3", 2048),
        ("ModelConfig.d_ff // 2", 32),
        ("A in (1, 12) and not B > 5", True),
        ("1 < B < 4 or A == 12", True),
        ("'full' if A > 100 else 'none'", "none"),
        ("2 ** 10", 1024),
    ],
)
def test_what_rules_may_say(text, expected):
    assert value(text) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("__import__('os').system('x')", "is not known"),
        ("A.__class__.__base__", "is not known"),
        ("[x for x in (1, 2)]", "is not known"),
        ("(lambda: 1)()", "is not known"),
        ("open('x')", r"open\(\) is not known"),
        ("LENGTHS[A]", "needs a plain key"),
        ("A << 3", "is not known"),
        ("A is B", "is not known"),
        ("f'{A}'", "is not known"),
        ("b'x'", "is no number"),
        ("A = 3", "cannot be parsed"),
        ("A +", "cannot be parsed"),
        ("", "cannot be parsed"),
        ("(" * 400 + ")" * 400, "cannot be parsed"),
        ("1+" * 600 + "1", "longer than 1000"),
        ("min(A, key=B)", r"min\(\) is not known"),
    ],
)
def test_what_is_no_arithmetic(text, why):
    with pytest.raises(UserError, match=f"a rule=.* is not arithmetic \\(.*{why}") as caught:
        Rule.parse(text, "a rule")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("A / (B - 5)", "division by zero"),
        ("9 ** 9 ** 9", "too large"),
        ("10.0 ** 400", "too large"),
        ("(-A) ** 0.5", "is no number"),
        ("'x' * A", "'x' is no number"),
        ("LENGTHS['nothing'] + 1", "there is no 'nothing'"),
        ("sqrt(-1)", "nonnegative|math domain"),
    ],
)
def test_what_has_no_value(text, why):
    with pytest.raises(UserError, match="has no value where") as caught:
        value(text)
    assert re.search(why, str(caught.value))
