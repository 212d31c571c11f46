"""Scores: what the model is asked, row by row; averages as t5 has them; what is written."""

import json
import math

import numpy as np
import pytest

from switchx import inference
from switchx.data.grades import Grade, plain
from switchx.evaluation.averages import averages
from switchx.evaluation.config import METHODS, ScoreConfig
from switchx.evaluation.predictions import path_of
from switchx.inference.prediction import pad
from switchx.model import Model
from switchx.sharding import MeshConfig, make_mesh
from switchx.training.readings import Scores
from switchx.training.state import Setup
from tests.helpers import init
from tests.training.helpers import INPUTS, NARROW, TARGETS, run_config
from tests.training.scored import EOS, Sums, scorer


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Where the answers lie, what was yielded and said, and the task, of a model on a mesh."""
    folder, said, task = tmp_path_factory.mktemp("scored"), [], Sums()
    run = run_config(**NARROW, mesh=MeshConfig(2, 4, 1))
    asked = scorer(Setup.of(run, make_mesh(run.mesh)), said.append, [task], str(folder))
    (found,) = asked(init(run.model), 7)
    return folder, found, said, task


def test_the_model_is_asked_for_every_row_once(scored):
    """As one batch of one device has them; what fills up batches is left out."""
    _, found, _, task = scored
    answers, scores, answer_scores = task.given
    assert len(answers) == len(scores) == len(answer_scores) == len(task.inputs) == 11
    run = run_config(**NARROW)
    model, params = Model.of(run.model), init(run.model)
    encoder_BM = np.asarray(pad(task.inputs, 11, INPUTS))
    answer_BL = np.asarray(inference.greedy(model, params, encoder_BM, TARGETS, EOS))
    assert np.array_equal(pad(answers, 11, TARGETS), answer_BL)
    for of, tokens in ((scores, task.targets), (answer_scores, answers)):
        score_B = inference.score(model, params, encoder_BM, pad(tokens, 11, TARGETS))
        assert of == pytest.approx(np.asarray(score_B).tolist(), rel=1e-4)
    assert found == ("sums", {"tokens": sum(map(sum, answers)), "nats": -sum(scores)})


class Easy(Sums):
    """One that asks nothing of the model."""

    needs = frozenset()

    def grade(self, answers, scores, answer_scores):
        return Grade({"right": 1.0}, [], self.lines)

    def lines(self):
        return [{}]


def test_what_is_said_and_written(scored, tmp_path):
    folder, _, said, task = scored
    assert said == [
        "tasks without scores: other has no metrics",
        f"sums: 2 of 11 targets are longer than TASK_FEATURE_LENGTHS['targets']={TARGETS}, which "
        "cuts them and the answers",
        "sums: another raised ValueError: no",
    ]
    lines = path_of(folder, "sums", 7).read_text().splitlines()
    assert [json.loads(line)["inputs"] for line in lines] == task.inputs
    blocked, said, run = tmp_path / "blocked", [], run_config(**NARROW)
    blocked.write_text("a file where a folder would be")
    asked = scorer(Setup.of(run, make_mesh(run.mesh)), said.append, [Easy()], str(blocked))
    assert list(asked(None, 7)) == [("sums", {"right": 1.0})]
    assert said[-1].startswith("sums: its answers are not written: ")


def test_answers_of_which_a_task_makes_something_odd(tmp_path, monkeypatch):
    """Neither ends the run: half a character is written as "?", what cannot be written is said."""
    said, run, made = [], run_config(**NARROW), ["\ud83d", 1, float("inf")]
    asked = scorer(Setup.of(run, make_mesh(run.mesh)), said.append, [Easy()], str(tmp_path))
    monkeypatch.setattr(Easy, "lines", lambda self: [{"prediction": plain(made)}])
    assert list(asked(None, 7)) == [("sums", {"right": 1.0})]
    assert json.loads(path_of(tmp_path, "sums", 7).read_text()) == {"prediction": ["?", 1, None]}
    made.append(made)
    assert list(asked(None, 8)) == [("sums", {"right": 1.0})]
    assert said[-1].startswith("sums: its answers are not written: ")


def test_the_average_of_a_mixture():
    scores = {"a": {"em": 10.0, "f1": 20.0}, "b": {"accuracy": 45.0}}
    assert averages(scores) == {"average": 30.0}
    assert averages({**scores, "c": {}}) == {}  # one whose metrics raised
    assert averages({"a": {"em": math.nan}}) == {} == averages({})
    by_name = Scores(scores | {"c": {"nan": math.nan}}, {"average": 30.0}).by_name()
    assert by_name == {"a/em": 10.0, "a/f1": 20.0, "b/accuracy": 45.0, "average": 30.0}


def test_ways_to_decode():
    assert sorted(METHODS) == sorted(inference.config.METHODS)
    beam = ScoreConfig(method="beam", num_beams=3, length_penalty=1.0).decoding(20, 16)
    assert (beam.length, beam.batch_size, beam.num_beams, beam.length_penalty) == (20, 16, 3, 1.0)
