"""A mixture of tasks with metrics, trained and evaluated by the command, each score seen again."""

import json

import numpy as np
import pytest

from switchx.training.run_reader import metric_rows
from tests.data import graded_tasks as own

pytestmark = pytest.mark.usefixtures("one_device")

SMALL = [
    "--gin.MIXTURE_OR_TASK_MODULE='tests.data.graded_tasks'",
    "--gin.VOCABULARY='default'",
    "--gin.BATCH_SIZE=8",
    "--gin.EVAL_STEPS=2",
    "--gin.EVAL_PERIOD=1",
    "--gin.CHECKPOINT_PERIOD=1",
    "--gin.KEEP_CHECKPOINTS=1",
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 32, 'targets': 16}",
    "--gin.ModelConfig.d_model=32",
    "--gin.ModelConfig.d_ff=64",
    "--gin.ModelConfig.num_layers=1",
    "--gin.ModelConfig.switch=None",
    "--gin.TRAIN_STEPS=2",
    "--model_dir=run",
]
MIXTURE = "--gin.MIXTURE_OR_TASK_NAME='graded_mixture'"
TASKS = ["graded_pairs", "graded_raising", "graded_ranking"]


def lines_of(folder, task, step):
    text = (folder / "run/predictions" / task / f"{step}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def expected(folder, step):
    """Each task's values, by its functions on what was written."""
    pairs, raising, ranking = (lines_of(folder, task, step) for task in TASKS)
    targets, predictions = ([line[of] for line in pairs] for of in ("target", "prediction"))
    scores = [line["score"] for line in pairs]
    np.random.seed(0)
    choices = [(tuple(line["target"][0]), *line["target"][1:]) for line in ranking]
    return {
        "graded_pairs": {
            **own.accuracy(targets, predictions),
            **own.drawn(targets, predictions),
            **own.likelihood(targets, scores),
        },
        "graded_raising": {
            "longest": 7,
            **own.accuracy(*([line[of] for line in raising] for of in ("target", "prediction"))),
        },
        "graded_ranking": own.metrics.rank_classification(
            choices, [line["score"] for line in ranking], 2
        ),
    }


def test_scores_of_each_task_from_training_to_evaluation(command, tmp_path):
    best = "--gin.BEST_SCORE='graded_pairs/likelihood'"
    trained = command("train", *SMALL, MIXTURE, best)
    assert trained.status == 0, trained.err
    rows = {(row["step"], row["split"]): row for row in metric_rows(tmp_path / "run")}
    for step in (1, 2):
        for task, values in expected(tmp_path, step).items():
            row = rows[step, f"validation/{task}"]
            found = {name[6:]: x for name, x in row.items() if name.startswith("score/")}
            assert found == pytest.approx(values, rel=1e-6), task
            assert row["loss"] > 0
        mean = np.mean([np.mean(list(of.values())) for of in expected(tmp_path, step).values()])
        assert rows[step, "validation"]["score/average"] == pytest.approx(mean)
    for said in (
        "tasks without scores: graded_not_at_all has no metrics, graded_without_validation has no "
        "split 'validation'\n",
        "graded_pairs: 1 of 5 targets are longer than TASK_FEATURE_LENGTHS['targets']=16, which",
        "graded_raising: raising raised ZeroDivisionError: nothing to divide by\n",
    ):
        assert said in trained.err
    assert trained.err.count("tasks without scores") == 1
    assert "  graded_pairs    likelihood" in trained.out
    assert "  all tasks       average" in trained.out
    assert "  answers to graded_pairs, and what was right\n" in trained.out
    assert " two plus two : " in trained.out

    evaluated = command("eval", "--model_dir=run", "--json")
    assert evaluated.status == 0, evaluated.err
    found = json.loads(evaluated.out)
    assert found["scores"].keys() == set(TASKS)
    for task, values in expected(tmp_path, 2).items():
        assert found["scores"][task] == pytest.approx(values, rel=1e-5)
    assert found["averages"]["average"] == pytest.approx(mean, rel=1e-5)
    assert "switchx: graded_raising: raising raised ZeroDivisionError" in evaluated.err


MISTAKES = {
    "no such task": (
        ["--gin.BEST_SCORE='squad/f1'"],
        "BEST_SCORE='squad/f1' is no score of graded_pairs, graded_raising, graded_ranking: give",
    ),
    "without scores": (
        ["--gin.BEST_SCORE='average'", "--gin.EVAL_SCORES=False"],
        "BEST_SCORE='average' needs EVAL_SCORES=True: give 'loss', 'average', or a task's name",
    ),
    "no metrics": (
        ["--gin.BEST_SCORE='average'", "--gin.MIXTURE_OR_TASK_NAME='graded_not_at_all'"],
        "BEST_SCORE='average' needs a task with metrics, and MIXTURE_OR_TASK_NAME="
        "'graded_not_at_all' has none: give",
    ),
    "arguments of a metric": (
        ["--gin.MIXTURE_OR_TASK_NAME='graded_wrongly'"],
        "the task 'graded_wrongly' has a metric function that seqio does not know how to call",
    ),
    "a way to decode": (["--gin.DECODING_METHOD='best'"], "'best' is not one of greedy, beam"),
    "no examples": (["--gin.SCORE_EXAMPLES=0"], "SCORE_EXAMPLES=0 must be a whole number of at"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_line_for_each_mistake(mistake, command):
    flags, sentence = MISTAKES[mistake]
    refused = command("train", *SMALL, MIXTURE, *flags)
    assert refused.status == 2
    assert sentence in refused.err
    assert refused.err.count("\n") == 1
