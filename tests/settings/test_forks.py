"""Which settings may differ between a run and the one whose checkpoint it begins with."""

import pytest

from switchx.api import configure
from switchx.errors import UserError
from switchx.settings import check_fork

TASK = {"TRAIN_STEPS": 100, "SCHEDULE": "wsd", "WARMUP_STEPS": 10, "LEARNING_RATE": 0.01}


def settings(directory="short", **changes):
    return configure(["configs/runs/quickstart.gin"], directory, **{**TASK, **changes})


@pytest.fixture
def longer(tmp_path):
    """A directory in which a run of 400 steps was started."""
    write(tmp_path, "config.gin")
    return tmp_path


def write(directory, name, **changes):
    (directory / name).write_text(settings(str(directory), TRAIN_STEPS=400, **changes).resolved)


@pytest.mark.parametrize(
    "free",
    [
        {},
        {"EVAL_PERIOD": 7, "LOG_PERIOD": 3, "CHECKPOINT_PERIOD": 50, "KEEP_CHECKPOINTS": 9},
        {"METRIC_WRITERS": [], "EVAL_STEPS": 2, "EVAL_BATCH_SIZE": 8, "CHECKPOINT_STEPS": (8,)},
        {"TRAIN_STEPS": 150, "DECAY_SHARE": 0.4},
    ],
)
def test_what_reaches_no_state_may_differ(longer, free):
    check_fork(settings(**free), longer, 90)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"LEARNING_RATE": 0.02}, r"LEARNING_RATE=0\.02 was 0\.01 in the run in MODEL_DIR="),
        ({"SEED": 1}, "SEED=1 was 0 in the run"),
        ({"NUM_EXPERTS": 4}, "NUM_EXPERTS=4 was 8"),
        ({"BATCH_SIZE": 64}, "BATCH_SIZE=64 was "),
        ({"SCHEDULE": "constant"}, "SCHEDULE='constant' was 'wsd'"),
        ({"SCHEDULE": "cosine"}, "SCHEDULE='cosine' depends on TRAIN_STEPS"),
        ({"DECAY_SHARE": 0.11}, "TRAIN_STEPS=100 comes to its decay or its end at step 89"),
        ({"ON_BAD_LOSS": "skip"}, r"CHECKPOINT_STEPS=\(\) must hold step 90"),
        ({"ON_BAD_LOSS": "skip", "CHECKPOINT_PERIOD": 9}, "CHECKPOINT_PERIOD=9 was 1200"),
        ({"**": {"SwitchConfig.jitter": 0.0}}, r"SwitchConfig\.jitter=0\.0 was 0\.01"),
        ({"**": {"OptimizerConfig.momentum": 0.5}}, r"OptimizerConfig\.momentum=0\.5 was 0\.0"),
    ],
)
def test_what_reaches_a_state_is_refused_by_name(longer, changes, says):
    changes = {**changes, **changes.get("**", {})}
    changes.pop("**", None)
    with pytest.raises(UserError, match=says):
        check_fork(settings(**changes), longer, 90)


def test_the_other_run_must_not_decay_before(longer):
    with pytest.raises(
        UserError, match="TRAIN_STEPS=400 comes to its decay or its end at step 360"
    ):
        check_fork(settings(TRAIN_STEPS=800), longer, 361)


def test_each_start_of_the_other_run_counts(longer):
    write(longer, "config.0.gin", LEARNING_RATE=0.5)
    with pytest.raises(UserError, match=r"LEARNING_RATE=0\.01 was 0\.5 in the run"):
        check_fork(settings(), longer, 90)


def test_rollbacks_must_go_as_far(longer):
    skip = {"ON_BAD_LOSS": "skip", "CHECKPOINT_PERIOD": 45}
    write(longer, "config.gin", **skip)
    check_fork(settings(**skip), longer, 90)
    with pytest.raises(UserError, match="CHECKPOINT_PERIOD=30 was 45"):
        check_fork(settings(**{**skip, "CHECKPOINT_PERIOD": 30}), longer, 90)


def test_no_run_is_no_beginning(tmp_path):
    with pytest.raises(UserError, match=r"holds no config\.gin: name the directory of a run"):
        check_fork(settings(), tmp_path, 90)
