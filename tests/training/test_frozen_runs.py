"""A run with FREEZE: its checkpoints, going on from them, and with another FREEZE."""

import re
import shutil

import jax
import numpy as np
import pytest

from switchx.errors import UserError
from switchx.model import Model
from switchx.training import train
from switchx.training.adapting import named
from switchx.training.checkpoints.identity import read_identity
from tests.training.helpers import assert_same_end, feed, params_of, run_config
from tests.training.test_freezing import TINY

pytestmark = pytest.mark.usefixtures("one_device")
CONFIG = {**TINY, "frozen": ["experts", "embedding"], "name": "adamw", "learning_rate": 1e-3}
NAMES = "/experts/|embedding/"


def go(directory, **changes):
    return train(run_config(**{**CONFIG, **changes}), str(directory), feed())


@pytest.fixture(scope="module")
def begun(tmp_path_factory, one_device):
    """Two steps. Not to be written to."""
    directory = tmp_path_factory.mktemp("begun") / "run"
    go(directory, train_steps=2)
    return directory


@pytest.fixture
def run(begun, tmp_path):
    return shutil.copytree(begun, tmp_path / "run")


def test_a_checkpoint_has_no_state_of_what_is_frozen(begun):
    arrays = read_identity(begun, 2)[0]["arrays"]
    parameters = {name.removeprefix("params/") for name in arrays if name.startswith("params/")}
    moments = [re.sub(r".*?/(mu|nu)/", "", name) for name in arrays if re.search("/(mu|nu)/", name)]
    assert sorted(moments) == sorted(2 * [n for n in parameters if not re.search(NAMES, n)])
    assert [name for name in parameters if re.search(NAMES, name)]


def test_a_run_goes_on_bit_by_bit_and_says_what_it_trains(run, tmp_path, capfd):
    whole = tmp_path / "whole"
    go(whole)
    assert go(run).first_step == 2
    assert_same_end(run, whole, run_config(**CONFIG))
    shapes = named(Model.of(run_config(**CONFIG).model).shapes)
    total = sum(leaf.size for leaf in shapes.values())
    own = sum(leaf.size for name, leaf in shapes.items() if not re.search(NAMES, name))
    says = f"{total:,} parameters, {own:,} of them trained ({own / total:.2%}), frozen: experts, "
    assert capfd.readouterr().err.count(says) == 2


def test_another_freeze_is_refused_or_goes_on_with_a_fresh_optimizer(run):
    before = params_of(run, run_config(**{**CONFIG, "train_steps": 2}))
    with pytest.raises(UserError) as refused:
        go(run, train_steps=3, frozen=())
    says = r"^FREEZE=\(\) is not what .* set \('embedding', 'experts'\), .*=True, or choose another"
    assert re.search(says, str(refused.value))
    go(run, train_steps=3, frozen=(), reset_optimizer=True)
    after = params_of(run, run_config(**{**CONFIG, "train_steps": 3}))
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), before, after)
    assert all(jax.tree.leaves(moved))
