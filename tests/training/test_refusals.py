"""What a directory's checkpoints refuse, from its JSON alone: fast, and one sentence each."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest

from switchx.errors import UserError
from switchx.training.checkpoints.identity import identity, saved_steps, sealed
from switchx.training.checkpoints.refusals import check_model, check_resume
from tests.training.helpers import run_config


def saved(directory, run, step, shards=1, vocabulary="v1"):
    """What a checkpoint says of itself."""
    folder = directory / "checkpoints" / str(step) / "identity"
    folder.mkdir(parents=True)
    own = identity(run.model, run.optimizer.name, vocabulary)
    (folder / "metadata").write_text(json.dumps(sealed({**own, "shards": shards, "arrays": {}})))


@pytest.fixture
def directory(tmp_path):
    saved(tmp_path, run_config(), 2)
    saved(tmp_path, run_config(), 4)
    (tmp_path / "checkpoints" / "6.orbax-checkpoint-tmp").mkdir()
    return tmp_path


def test_widths_are_part_of_what_a_checkpoint_is_of(tmp_path):
    run = run_config()
    switch = dataclasses.replace(run.model.switch, expert_widths=((6, 64), (2, 128)))
    other = dataclasses.replace(run, model=dataclasses.replace(run.model, switch=switch))
    saved(tmp_path, other, 2)
    check_resume(other, tmp_path, "v1")
    says = r"SwitchConfig.expert_widths is \(\(6, 64\), \(2, 128\)\) there and None here"
    with pytest.raises(UserError, match=says):
        check_resume(run, tmp_path, "v1")


def test_what_goes_on_is_not_refused(directory, tmp_path):
    assert saved_steps(directory) == [2, 4]
    check_resume(run_config(train_steps=4, learning_rate=0.5), directory, "v1")
    check_resume(run_config(), directory)  # the vocabulary is not known yet
    check_resume(run_config(), tmp_path / "nothing there", "v1")
    check_model(run_config().model, directory)
    # Other words for the same layers.
    widths = dict(expert_widths=((8, 128),))
    same = dataclasses.replace(
        run_config().model.switch, encoder_sparse=(0,), decoder_sparse=1, **widths
    )
    check_model(run_config(switch=same, num_decoder_layers=1).model, directory)


@pytest.mark.parametrize(
    ("changes", "vocabulary", "says"),
    [
        ({"train_steps": 3}, "v1", r"TRAIN_STEPS=3 lies behind .* is of step 4: give at least"),
        ({"d_ff": 256}, "v1", r"d_ff is 128 .* as --gin_file='.*/config\.gin' does, or"),
        ({"switch": None}, "v1", r"NUM_EXPERTS is 8 there and None here"),
        ({"relative_max_distance": 64}, "v1", r"relative_max_distance is 128 there and 64 here"),
        (
            {"switch": dataclasses.replace(run_config().model.switch, extra_dense=True)},
            "v1",
            r"SwitchConfig\.extra_dense is False there and True here",
        ),
        ({"num_decoder_layers": 3}, "v1", r"num_decoder_layers is None there and 3 here"),
        (
            {"switch": dataclasses.replace(run_config().model.switch, encoder_sparse=())},
            "v1",
            r"SwitchConfig\.encoder_sparse is None there and \(\) here",
        ),
        ({"name": "adamw"}, "v1", r"OPTIMIZER='adamw' is not what .* set 'adafactor'"),
        ({}, "v2", r"VOCABULARY does not match .* as --gin_file='.*/config\.gin' does, or choose"),
    ],
)
def test_what_cannot_go_on_is_refused_by_its_setting(directory, changes, vocabulary, says):
    with pytest.raises(UserError, match=says) as caught:
        check_resume(run_config(**changes), directory, vocabulary)
    assert "\n" not in str(caught.value)


def test_a_damaged_identity_is_passed_over(directory):
    (directory / "checkpoints" / "4" / "identity" / "metadata").write_text('{"model": {}}')
    saved(directory, run_config(d_ff=64), 3)
    with pytest.raises(UserError, match="d_ff is 64 there and 128 here"):
        check_resume(run_config(), directory)


def test_a_model_to_read_is_refused(directory, tmp_path):
    with pytest.raises(UserError, match=r"d_model is 128 there and 64 here"):
        check_model(run_config(d_model=64).model, directory)
    with pytest.raises(UserError, match="holds no checkpoint"):
        check_model(run_config().model, tmp_path / "nothing there")


def test_the_check_loads_nothing_that_takes_its_time():
    code = (
        "import sys\n"
        "from switchx.training import RunConfig\n"
        "from switchx.training.checkpoints.refusals import check_resume\n"
        "slow = {'orbax', 'tensorstore', 'tensorflow', 'seqio', 'grain'} & set(sys.modules)\n"
        "assert not slow, slow\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
