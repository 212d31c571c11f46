"""Tasks' own metrics: each value against seqio's Evaluator, and the functions called directly."""

import numpy as np
import pandas as pd
import pytest
import seqio

from switchx import data
from switchx.errors import UserError
from switchx.evaluation.averages import averages
from tests.data import graded_tasks as own
from tests.data.conftest import docs_config

LENGTHS = {"inputs": 64, "targets": 64}


def config(name, **changes):
    values = {"feature_lengths": LENGTHS, "task_module": "tests.data.graded_tasks", **changes}
    return docs_config(mixture_or_task_name=name, **values)


def graded(name, most=None, **changes):
    (task,) = data.graded_tasks(config(name, **changes), most)
    return task


def encode(*texts):
    return [[*text.encode(), 1] for text in ("".join(chr(ord(c) + 3) for c in t) for t in texts)]


ANSWERS = ["four", "free", "Paris", "on and on", ""]
SCORES = [-1.0, -2.5, -0.25, -9.0, -0.125]
ANSWER_SCORES = [-0.5, -0.75, -1.5, -4.0, -2.0]


def by_seqio(name, answers, scores, answer_scores):
    """What seqio's own Evaluator says of the same outputs."""
    evaluator = seqio.Evaluator(
        name, seqio.EncDecFeatureConverter(pack=False), sequence_length=LENGTHS
    )
    order = np.random.default_rng(0).permutation(len(scores))  # it sorts them itself
    rows = [answer + [0] * (64 - len(answer)) for answer in answers]
    weights = [[float(n < len(target)) for n in range(64)] for target in graded(name).targets]
    kinds = seqio.metrics.ModelOutputType

    def pairs(values):
        return [(int(n), values[n]) for n in order]

    def permuted(values):
        return [values[n] for n in order]

    within = {"decoder": {"loss_weights": (permuted(weights),)}}
    np.random.seed(0)
    found, _ = evaluator.evaluate(
        compute_metrics=True,
        model_fns={
            kinds.PREDICTION: lambda dataset: pairs(rows),
            kinds.PREDICTION_WITH_AUX: lambda dataset: (
                pairs(rows),
                {"scores": permuted(answer_scores)},
            ),
            kinds.SCORE: lambda dataset: pairs(scores),
            kinds.SCORE_WITH_INTERMEDIATES: lambda dataset: (pairs(scores), within),
        },
    )
    return found.result()[name]


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("graded_pairs", {"predict", "score"}),
        ("graded_objects", {"predict", "score", "answer_scores"}),
    ],
)
def test_values_are_those_of_seqios_evaluator(name, needs):
    task = graded(name)
    assert task.needs == needs
    grade = task.grade(encode(*ANSWERS), SCORES, ANSWER_SCORES)
    assert grade.problems == []
    assert grade.values == pytest.approx(by_seqio(name, encode(*ANSWERS), SCORES, ANSWER_SCORES))
    assert len(grade.values) >= 3
    again = task.grade(encode(*ANSWERS), SCORES, ANSWER_SCORES)
    assert again.values == grade.values  # what is drawn at random too


def test_values_are_those_of_the_functions():
    grade = graded("graded_pairs").grade(encode(*ANSWERS), SCORES)
    targets = [target.upper() for _, target in own.PAIRS]
    predictions = [answer.upper() for answer in ANSWERS]
    assert grade.values["accuracy"] == own.accuracy(targets, predictions)["accuracy"] == 40
    assert grade.values["likelihood"] == own.likelihood(targets, SCORES)["likelihood"]
    lines = list(grade.lines)
    assert lines[1] == {
        "inputs": "one plus two",
        "target": "THREE",
        "output": "free",
        "prediction": "FREE",
        "score": -2.5,
    }
    assert [line["target"] for line in lines] == targets


def test_ranking_by_scores_alone():
    task = graded("graded_ranking")
    assert task.needs == {"score"}
    assert len(task.targets) == 4
    grade = task.grade(scores=[-1.0, -2.0, -0.5, -3.0])
    idx = [(0, 0), (0, 1), (1, 0), (1, 1)]
    rows = zip(idx, [True, False, False, True], [1.0] * 4, map(len, task.targets), strict=True)
    expected = own.metrics.rank_classification(list(rows), [-1.0, -2.0, -0.5, -3.0], 2)
    assert grade.values == pytest.approx(expected)
    assert grade.values["accuracy"] == 50
    assert [line["score"] for line in grade.lines] == [-1.0, -2.0, -0.5, -3.0]


def test_a_metric_that_raises_costs_its_own_values_alone():
    grade = graded("graded_raising").grade(encode(*ANSWERS))
    assert grade.values == {"longest": 7, "accuracy": 40}
    assert grade.problems == [
        "raising raised ZeroDivisionError: nothing to divide by",
        *(f"{name!r} is no number, and is not kept" for name in ("note", "word", "none", "rows")),
        "two metrics give 'accuracy', of which the first is kept",
    ]
    assert len(list(grade.lines)) == len(own.PAIRS)


def test_the_tasks_of_a_mixture():
    chosen = config("graded_mixture")
    names = [task.name for task in data.graded_tasks(chosen)]
    assert sorted(names) == ["graded_pairs", "graded_raising", "graded_ranking"]
    assert data.ungraded_tasks(chosen) == {
        "graded_not_at_all": "has no metrics",
        "graded_without_validation": "has no split 'validation'",
    }
    assert data.graded_tasks(docs_config()) == []
    with pytest.raises(UserError, match="'graded_wrongly' has a metric function that seqio"):
        data.graded_tasks(config("graded_wrongly"))


def test_targets_longer_than_the_limit_are_counted():
    assert graded("graded_pairs").long_targets == 0
    short = graded("graded_pairs", feature_lengths={"inputs": 64, "targets": 6})
    assert short.long_targets == 1  # "three" and "Paris" just fit
    assert graded("graded_pairs", feature_lengths={**LENGTHS, "targets": 5}).long_targets == 3
    assert [len(target) for target in short.targets] == [5, 6, 6, 6, 2]
    assert (
        graded("graded_pairs", most=3, feature_lengths=short._config.feature_lengths).targets
        == (short.targets[:3])
    )


def of_benchmarks(version, super_version):
    """A value for each metric that t5 has a name for, by task and metric."""
    from t5.evaluation import eval_utils

    rng, scores, columns = np.random.default_rng(0), {}, {}
    for tag, metric in eval_utils.METRIC_NAMES.items():
        if "/" in tag:
            task, name = tag.split("/")
            value = columns.setdefault(metric.name, float(rng.uniform(0, 100)))
            task = task.replace("_v002", version).replace("_v102", super_version)
            scores.setdefault(task, {})[name] = value
    frame = pd.DataFrame({name: [value] for name, value in columns.items()})
    return scores, eval_utils.compute_avg_glue(frame)


@pytest.mark.parametrize("versions", [("_v002", "_v102"), ("_v200", "_v102")])
def test_averages_of_glue_are_those_of_t5(versions):
    scores, expected = of_benchmarks(*versions)
    scores |= {"glue_wnli_v002": {"accuracy": 0.0}}  # is no part of it
    found = averages(scores)
    assert found["glue_average"] == pytest.approx(expected["Average GLUE Score"][0])
    assert found["super_glue_average"] == pytest.approx(expected["Average SuperGLUE Score"][0])
    del scores["super_glue_wic_v102"], scores[f"glue_mrpc{versions[0]}"]["f1"]
    assert averages(scores).keys() == {"average"}
