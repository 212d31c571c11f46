"""Scores while a run trains: beside it, in its rows, and the checkpoint that is best by them."""

from switchx.evaluation import Evaluator
from switchx.training import Feed, train
from switchx.training.checkpoints.identity import saved_steps
from switchx.training.run_reader import metric_rows
from tests.training.helpers import SMALL, Stream, assert_same_end, eval_batches, run_config

ACCURACY = {1: 10.0, 2: 30.0, 3: 20.0, 4: 25.0}


class Marks:
    """What a Scorer yields, made up."""

    def __init__(self, setup, say):
        say("graded")

    def __call__(self, params, step):
        yield "quiz", {"accuracy": ACCURACY[step], "nan": float("nan")}


CHANGES = SMALL | {"eval_period": 1, "checkpoint_period": 1, "keep_checkpoints": 1}
# At so high a rate the loss is lowest before the last step.
CHANGES |= {"learning_rate": 3.0, "seed": 2}


def go(directory, steps=4, scored=True, **changes):
    run = run_config(**{**CHANGES, **changes}, train_steps=steps)

    def evaluation(setup):
        return Evaluator(setup, eval_batches, make_scorer=Marks if scored else None)

    train(run, str(directory), Feed(Stream, evaluation, lambda: "v1"), "# none\n")
    return run


def rows_of(directory, without=()):
    """By step and split, without when and how fast they were."""
    left_out = {"time", "steps_per_second", "tokens_per_second", "model_flops_per_second"}
    left_out |= {"utilisation", *without}
    return {
        (row["step"], row["split"]): {k: v for k, v in row.items() if k not in left_out}
        for row in metric_rows(directory)
    }


def test_scores_beside_a_run_that_they_do_not_change(tmp_path, one_device):
    """The same parameters bit by bit, also after a resume; the best checkpoint is kept by them."""
    plain, whole, resumed = (tmp_path / name for name in ("plain", "whole", "resumed"))
    run = go(plain, scored=False)
    go(whole, best_score="quiz/accuracy")
    go(resumed, steps=3, best_score="quiz/accuracy")
    assert saved_steps(resumed) == [2, 3]
    go(resumed, best_score="quiz/accuracy")
    assert_same_end(whole, plain, run)
    assert_same_end(resumed, whole, run)
    assert saved_steps(plain) == [3, 4]  # of the lowest loss, and the newest
    assert saved_steps(whole) == saved_steps(resumed) == [2, 4]
    rows = rows_of(whole)
    assert rows_of(resumed) == rows
    for step, accuracy in ACCURACY.items():
        row = rows[step, "validation/quiz"]
        assert row["score/accuracy"] == accuracy
        assert row["score/nan"] is None
        assert row["loss"] == rows[step, "validation"]["loss"]
    unscored = {key: row for key, row in rows.items() if key[1] != "validation/quiz"}
    assert unscored == rows_of(plain)


def test_a_score_that_is_not_there_is_said_and_the_run_goes_on(tmp_path, one_device, capfd):
    go(tmp_path, steps=2, best_score="quiz/nan")
    said = capfd.readouterr().err
    assert said.count("BEST_SCORE='quiz/nan' is not among what was measured, loss, quiz/acc") == 1
    assert saved_steps(tmp_path) == [2]
