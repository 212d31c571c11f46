"""Runs of equal shapes share their compiled steps, and are none the worse for it."""

import jax
import numpy as np
import optax
import pytest

from switchx.sharding import make_mesh
from switchx.training import train
from switchx.training.config import OPTIMIZERS
from switchx.training.state import Setup
from switchx.training.step import compile_train_step, trace_train_step, train_step
from tests.training.helpers import SMALL, batch, feed, run_config

pytestmark = pytest.mark.usefixtures("one_device")

# What differs between points of a sweep that have their shapes in common.
OTHER = {"seed": 5, "learning_rate": 0.3, "warmup_steps": 2, "train_steps": 3, "log_period": 2}


def setup_of(**changes):
    run = run_config(**{**SMALL, **changes})
    return Setup.of(run, make_mesh(run.mesh))


def after_two_steps(step, setup):
    state = setup.init()
    for number in range(2):
        state, metrics = step(state, batch(number))
    return jax.device_get((state, metrics))


def test_a_program_that_is_given_numbers_is_that_of_which_they_are_constants():
    first, setup = (setup_of(schedule="wsd", **other) for other in ({}, OTHER))
    constants = jax.jit(lambda state, batch: train_step(setup, state, {}, batch))
    compile_train_step(first)
    with jax.set_mesh(setup.mesh):
        expected = after_two_steps(constants, setup)
    found = after_two_steps(compile_train_step(setup), setup)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert (
        found[1]["learning_rate"]
        != after_two_steps(compile_train_step(first), first)[1]["learning_rate"]
    )


def test_what_a_step_depends_on_makes_another_program():
    program = setup_of().program
    for other in ({"seed": 5}, {"checkpoint_steps": [7]}, {"metric_writers": []}, OTHER):
        assert setup_of(**other).program is program, other
    changes = {"z_loss": 0.1, "microbatches": 2, "weight_decay": 0.1, "d_ff": 64, "beta1": 0.5}
    for name, value in {**changes, "schedule": "wsd", "clip_global_norm": 1.0}.items():
        assert setup_of(**{name: value}).program is not program, name


def test_an_optimizer_of_one_s_own_may_read_the_rate_from_its_configuration(monkeypatch):
    own = lambda config, schedule, axes: optax.sgd(config.learning_rate)  # noqa: E731
    monkeypatch.setitem(OPTIMIZERS, "own", own)
    setups = [setup_of(name="own", learning_rate=rate) for rate in (0.1, 0.2)]
    programs = [each.program for each in setups]
    assert [program.run.optimizer.learning_rate for program in programs] == [0.1, 0.2]
    monkeypatch.setitem(OPTIMIZERS, "own", lambda config, schedule, axes: optax.sgd(schedule))
    assert setup_of(name="own", learning_rate=0.2).program is not programs[1]


def test_a_step_is_of_the_precision_that_jax_is_set_to():
    """Between runs of one process too."""
    setup = setup_of()

    def share_of_highest():
        text = str(trace_train_step(setup).jaxpr)
        return text.count("precision=(Precision.HIGHEST") / text.count("dot_general[")

    assert share_of_highest() < 0.1  # the router's
    with jax.default_matmul_precision("highest"):
        assert share_of_highest() == 1


def test_a_second_run_neither_traces_nor_compiles(tmp_path, monkeypatch):
    def go(name, **changes):
        run = run_config(**{**SMALL, "schedule": "wsd", **changes})
        return train(run, str(tmp_path / name), feed())

    go("first", warmup_steps=1)
    monkeypatch.setattr(jax, "jit", None)
    assert go("second", **OTHER).step == OTHER["train_steps"]
