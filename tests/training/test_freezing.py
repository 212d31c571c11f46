"""FREEZE: what is frozen stays to the bit, and the rest trains as if it were put back each step."""

import re

import jax
import numpy as np
import pytest

from switchx.errors import UserError
from switchx.sharding import MeshConfig, make_mesh
from switchx.training.adapting import named
from switchx.training.batches import put_batch
from switchx.training.checks import check_run
from switchx.training.state import Setup, TrainState
from switchx.training.step import compile_train_step
from tests.training.helpers import (
    SMALL,
    batch,
    run_config,
)

# A layer with experts in each stack; sizes that differ, so that a product is known by them.
SWITCH = run_config().model.switch
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
    ("router", "attention"): "/router/|attention/|_bias/",
    # And of the decoder products of the same sizes, of which some have a gradient for each of two.
    ("embedding", "norms", "encoder/*", "*/query_DT"): "^embedding/|norm|^encoder/|/query_DT",
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


def checked(**changes):
    run = run_config(**{**TINY, **changes})
    check_run(run, make_mesh(run.mesh, jax.devices()[:1]))


@pytest.mark.parametrize(
    ("frozen", "says"),
    [
        (("expert",), "FREEZE=('expert',): 'expert' is no parameter of this model: name a group"),
        (("dense",), "'dense' is no parameter of this model"),
        (("experts", "*_*", "*/scale_D"), "freezes all 28 parameters of this model"),
        ((3,), "FREEZE=(3,) must be groups of parameters or patterns"),
    ],
)
def test_what_freezes_nothing_or_everything_is_refused(frozen, says):
    with pytest.raises(UserError) as refused:
        checked(frozen=frozen)
    assert says in str(refused.value)
