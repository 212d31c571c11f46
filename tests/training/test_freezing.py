"""FREEZE: what is frozen stays to the bit, and the rest trains as if it were put back each step."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from switchx.errors import UserError
from switchx.planning import memory
from switchx.planning.summary import Summary
from switchx.sharding import MeshConfig, make_mesh
from switchx.training import train
from switchx.training.adapting import named
from switchx.training.batches import abstract_batch, put_batch
from switchx.training.checkpoints.identity import read_identity
from switchx.training.checks import check_run
from switchx.training.state import Setup, TrainState
from switchx.training.step import compile_train_step
from tests.training.helpers import (
    SMALL,
    assert_same_end,
    batch,
    feed,
    params_of,
    run_config,
)

# A layer with experts in each stack; sizes that differ, so that a product is known by them.
SWITCH = dataclasses.replace(run_config().model.switch, every=1)
TINY = {**SMALL, "switch": SWITCH, "num_layers": 1, "d_ff": 48, "weight_decay": 0.01}
ON_A_MESH = {
    "devices": 8,
    "mesh": MeshConfig(2, 2, 2, fully_sharded=True),
    "microbatches": 2,
    "clip_global_norm": 1e9,
}
# FREEZE, and what is in the names of the parameters that it means.
FROZEN = {
    ("experts",): "/experts/",
    ("embedding", "norms", "encoder/*"): "^embedding/|norm|^encoder/",
    ("router", "attention"): "/router/|attention/|_bias/",
}


def setup_of(devices=1, **changes):
    run = run_config(**{**TINY, **changes})
    return Setup.of(run, make_mesh(run.mesh, jax.devices()[:devices]))


def after_steps(setup, kept="$nothing", steps=3):
    """The parameters before and after some steps, each of which those `kept` are put back."""
    step, state = compile_train_step(setup), setup.init()
    first = named(jax.device_get(state.params))

    def put_back(path, leaf):
        name = "/".join(key.key for key in path)
        return first[name] if re.search(kept, name) else leaf

    for number in range(steps):
        state, _ = step(state, put_batch(batch(number), setup))
        params = jax.tree_util.tree_map_with_path(put_back, jax.device_get(state.params))
        placed = jax.device_put(params, setup.shardings.params)
        state = TrainState(state.step, placed, state.opt_state)
    return first, named(jax.device_get(state.params))


@pytest.mark.parametrize(("frozen", "names"), FROZEN.items(), ids=str)
def test_the_rest_trains_as_if_the_frozen_were_put_back_each_step(frozen, names):
    where = ON_A_MESH if "experts" in frozen else {}
    before, found = after_steps(setup_of(**where, frozen=frozen))
    _, expected = after_steps(setup_of(**where), names)
    stayed = {name for name in found if np.array_equal(found[name], before[name])}
    assert stayed == {name for name in found if re.search(names, name)}
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def go(directory, **changes):
    return train(run_config(**{**TINY, **changes}), str(directory), feed())


@pytest.mark.usefixtures("one_device")
def test_a_checkpoint_has_no_state_of_what_is_frozen_and_a_run_goes_on_from_it(tmp_path, capfd):
    config = {"frozen": ["experts", "embedding"], "name": "adamw", "learning_rate": 1e-3}
    go(tmp_path / "whole", **config)
    said = capfd.readouterr().err
    shapes = setup_of().model.shapes
    total = sum(leaf.size for leaf in named(shapes).values())
    own = sum(x.size for n, x in named(shapes).items() if not re.search("/experts/|^embedding/", n))
    assert f"{total:,} parameters, {own:,} of them trained ({own / total:.2%}), frozen: " in said
    arrays = read_identity(tmp_path / "whole", 4)[0]["arrays"]
    state = [name for name in arrays if name.startswith("optimizer/")]
    assert sum(name.endswith("wi_DF") or "norm" in name for name in state)
    assert not [name for name in state if re.search("/experts/|/embedding/", name)]
    go(tmp_path / "parts", **config, train_steps=2)
    assert go(tmp_path / "parts", **config).first_step == 2
    assert_same_end(tmp_path / "parts", tmp_path / "whole", run_config(**{**TINY, **config}))


@pytest.mark.usefixtures("one_device")
def test_another_freeze_is_refused_and_goes_on_with_a_fresh_optimizer(tmp_path):
    go(tmp_path, frozen=("experts",), train_steps=2)
    before = params_of(tmp_path, run_config(**{**TINY, "train_steps": 2}))
    with pytest.raises(UserError) as refused:
        go(tmp_path, train_steps=3)
    assert re.search(
        r"^FREEZE=\(\) is not what .* set \('experts',\), .*RESET_OPT", str(refused.value)
    )
    go(tmp_path, train_steps=3, reset_optimizer=True)
    after = params_of(tmp_path, run_config(**{**TINY, "train_steps": 3}))
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), before, after)
    assert all(jax.tree.leaves(moved))


def test_a_plan_counts_the_memory_of_what_is_trained():
    setup = setup_of(8, mesh=MeshConfig(2, 4, 1), frozen=("experts",), name="adamw", num_heads=4)
    own = sum(
        4 * np.prod(leaf.sharding.shard_shape(leaf.shape))
        for name, leaf in named(setup.abstract.params).items()
        if "/experts/" not in name
    )
    tokens = abstract_batch(setup.run.batch, setup)
    planned = memory.analytic(setup, tokens, limit=None)
    assert planned.parameters - planned.frozen == own
    assert 0 <= planned.optimizer - 2 * own < 100  # two moments, and counters
    compiled = memory.of_program(compile_train_step(setup).compiled, setup, tokens, None)
    assert compiled.gradients == own
    summary = Summary.of(setup.run)
    assert summary.memory_per_device.gradients == own
    assert summary.parameters_trained == summary.num_parameters - summary.parameters["experts"]


def checked(**changes):
    run = run_config(**{**TINY, **changes})
    check_run(run, make_mesh(run.mesh, jax.devices()[:1]))


@pytest.mark.parametrize(
    ("frozen", "says"),
    [
        (("expert",), "FREEZE=('expert',): 'expert' is no parameter of this model: name a group"),
        (("dense",), "'dense' is no parameter of this model"),
        (("experts", "*_*", "*/scale_D"), "freezes all 27 parameters of this model"),
        ((3,), "FREEZE=(3,) must be groups of parameters or patterns"),
    ],
)
def test_what_freezes_nothing_or_everything_is_refused(frozen, says):
    with pytest.raises(UserError) as refused:
        checked(frozen=frozen)
    assert says in str(refused.value)
