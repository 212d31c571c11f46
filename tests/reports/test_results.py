"""What is shown of figures: tables, and JSON that any reader takes."""

import json
import math

import numpy as np
import pytest

from switchx.reports import results
from switchx.training import TrainResult

READ = {"examples": 1200, "examples_in_split": 1200, "whole_split": True}
VALUES = {"loss": 2.5, "accuracy": 0.5, "perplexity": 12.1825, "unigram_entropy": 6.25}


def test_a_table_of_tasks():
    tasks = {"mc4.en": READ | VALUES, "mc4.zh-Latn": {**READ, **VALUES, "loss": 3.25}}
    assert results.evaluation_lines({"step": 1000, **READ, **VALUES, "tasks": tasks}) == [
        "step             1,000",
        "examples         1,200 of 1,200",
        "loss             2.5000",
        "accuracy         0.5000",
        "perplexity       12.1825",
        "unigram_entropy  6.2500",
        "",
        "task         examples          loss  accuracy  perplexity  unigram_entropy",
        "mc4.en       1,200 of 1,200  2.5000    0.5000     12.1825           6.2500",
        "mc4.zh-Latn  1,200 of 1,200  3.2500    0.5000     12.1825           6.2500",
    ]


@pytest.mark.parametrize(("total", "says"), [(5012, "80 of 5,012"), (None, "80 of more")])
def test_a_share_of_the_split_is_said(total, says):
    values = {"examples": 80, "examples_in_split": total, "whole_split": False, "loss": 1.0}
    lines = results.evaluation_lines(values)
    assert [line.split(maxsplit=1) for line in lines] == [["examples", says], ["loss", "1.0000"]]


def test_what_is_not_finite_is_null():
    values = {"step": 1, "loss": math.nan, "tasks": {"a": {"perplexity": math.inf, "loss": 1.0}}}
    assert json.loads(json.dumps(results.plain(values), allow_nan=False)) == {
        "step": 1,
        "loss": None,
        "tasks": {"a": {"perplexity": None, "loss": 1.0}},
    }


def test_experts_of_a_dense_model_are_not_shown():
    load = np.array([[0.5, 0.5, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]])
    (line,) = results._experts(TrainResult(10, None, VALUES, load))
    assert line.endswith("least used 0.00 of an equal share, most used 2.00; 2 dead")
    assert results._experts(TrainResult(10, None, VALUES, None)) == []
