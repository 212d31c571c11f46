"""Blanks of a text to sentinels, and the answer's spans back into them."""

import dataclasses

import pytest

from switchx.errors import UserError
from switchx.inference import answer, to_tokens
from switchx.inference.blanks import number_blanks, spans
from tests.inference.helpers import EOS, Characters

VOCABULARY = Characters()


@pytest.mark.parametrize(
    ("text", "numbered"),
    [
        ("no blank", "no blank"),
        ("a __ b ____.", "a <extra_id_0> b <extra_id_1>."),
        ("___", "<extra_id_0>"),
        ("(__, __)", "(<extra_id_0>, <extra_id_1>)"),
        ("a <extra_id_1> b <extra_id_0>", "a <extra_id_1> b <extra_id_0>"),
        ("__init__ and a_b and _ and x.__class__", "__init__ and a_b and _ and x.__class__"),
        ("__init__ takes __", "__init__ takes <extra_id_0>"),
        ("__init__ of <extra_id_0>", "__init__ of <extra_id_0>"),
    ],
)
def test_runs_of_underscores_are_numbered(text, numbered):
    assert number_blanks(text) == numbered


def test_both_kinds_of_blanks_are_refused():
    with pytest.raises(UserError, match="blanks of both kinds"):
        to_tokens("a __ and <extra_id_0>", VOCABULARY)


def test_tokens_end_with_the_end_of_sequence():
    tokens = to_tokens("ab __", VOCABULARY)
    assert tokens == [*VOCABULARY.encode("ab "), VOCABULARY.sentinel_id(0), EOS]


def test_a_blank_that_the_vocabulary_lacks_is_named():
    to_tokens("<extra_id_3>", VOCABULARY)
    with pytest.raises(UserError, match="<extra_id_4> is not in the vocabulary"):
        to_tokens("<extra_id_4>", VOCABULARY)
    with pytest.raises(UserError, match="<extra_id_4> is not in the vocabulary"):
        to_tokens("__ __ __ __ __", VOCABULARY)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("<extra_id_0> number <extra_id_1> None <extra_id_2>", {0: "number", 1: "None", 2: ""}),
        ("<extra_id_0>number<extra_id_1>None", {0: "number", 1: "None"}),
        ("<extra_id_1> late <extra_id_0> early", {1: "late", 0: "early"}),
        ("before <extra_id_0> a <extra_id_0> b", {0: "a"}),
        ("nothing", {}),
        ("", {}),
    ],
)
def test_a_span_reaches_to_the_next_sentinel(output, expected):
    assert spans(output) == expected


def test_an_answer_fills_the_text():
    tokens = [
        *VOCABULARY.encode_blanks("<extra_id_0> number <extra_id_1> None <extra_id_2>"),
        EOS,
        5,
    ]
    found = answer("Return the __ of it, or __ if __.", tokens, VOCABULARY)
    assert found.output == "<extra_id_0> number <extra_id_1> None <extra_id_2>"
    assert found.blanks == ["number", "None", ""]
    assert found.filled == "Return the number of it, or None if ."


def test_blanks_are_in_the_order_of_the_text():
    found = answer(
        "b <extra_id_1> a <extra_id_0> b <extra_id_1>",
        VOCABULARY.encode_blanks("<extra_id_0> x <extra_id_1> y"),
        VOCABULARY,
    )
    assert dataclasses.astuple(found)[1:] == (["y", "x", "y"], "b y a x b y")


def test_an_answer_is_put_in_as_it_is():
    # Not read as a pattern of regular expressions, and not searched for blanks again.
    vocabulary = Characters(alphabet="\\1g<0> _")
    tokens = vocabulary.encode_blanks("<extra_id_0>\\1 \\g<0> __")
    assert answer("__", tokens, vocabulary).filled == "\\1 \\g<0> __"
