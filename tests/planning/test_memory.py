"""Memory of a plan against counts made another way, and the compiler's refusals."""

import math

import jax
import numpy as np
import pytest

from switchx.planning import memory
from switchx.planning.memory import GIB, Refusal, parse_refusal
from switchx.planning.summary import Summary
from switchx.sharding import MeshConfig, make_mesh
from switchx.training.adapting import named
from switchx.training.batches import abstract_batch
from switchx.training.state import Setup
from tests.training.helpers import run_config


def setup_of(**mesh):
    run = run_config(mesh=MeshConfig(**mesh))
    return Setup.of(run, make_mesh(run.mesh))


@pytest.mark.parametrize("mesh", [dict(expert=4, data=2), dict(model=2, expert=2, data=2)])
@pytest.mark.parametrize("fully_sharded", [False, True])
def test_state_is_what_its_arrays_take_on_a_device(mesh, fully_sharded):
    setup = setup_of(fully_sharded=fully_sharded, **mesh)
    state = jax.tree.map(
        lambda leaf: jax.device_put(np.zeros(leaf.shape, leaf.dtype), leaf.sharding), setup.abstract
    )
    first = jax.devices()[0]

    def held(tree):
        arrays = jax.tree.leaves(tree)
        return sum(s.data.nbytes for a in arrays for s in a.addressable_shards if s.device == first)

    planned = memory.analytic(setup, {}, limit=None)
    assert planned.parameters == held(state.params)
    assert planned.optimizer == held(state.opt_state)


def test_what_is_frozen_has_neither_gradients_nor_optimizer_state():
    run = run_config(mesh=MeshConfig(2, 4, 1), d_ff=256, frozen=("experts",), name="adamw")
    setup = Setup.of(run, make_mesh(run.mesh))
    own = sum(
        4 * math.prod(leaf.sharding.shard_shape(leaf.shape))
        for name, leaf in named(setup.abstract.params).items()
        if "/experts/" not in name
    )
    tokens = abstract_batch(run.batch, setup)
    planned = memory.analytic(setup, tokens, limit=None)
    assert planned.parameters - planned.frozen == own
    assert 0 <= planned.optimizer - 2 * own < 100  # two moments, and counters
    refused = memory.of_refusal(Refusal(3 * GIB, 2 * GIB), setup, tokens)
    assert refused.gradients == own
    summary = Summary.of(run)
    assert summary.memory_per_device.gradients == own
    assert summary.memory_per_device.optimizer == planned.optimizer
    assert summary.parameters_trained == summary.num_parameters - summary.parameters["experts"]


def test_without_a_compiler_only_what_must_be_there_counts():
    setup = setup_of(data=8)
    batch = {"x": jax.ShapeDtypeStruct((8,), "float32", sharding=setup.shardings.step)}
    held = memory.analytic(setup, batch, limit=1000)

    def count(tree):
        return sum(4 * math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))

    assert held.parameters == count(setup.model.shapes)
    # One stack's gradients are there together; besides their sum if there are parts.
    assert held.gradients == max(count(setup.model.shapes[s]) for s in ("encoder", "decoder"))
    run = run_config(microbatches=2)
    parts = memory.analytic(Setup.of(run, make_mesh(run.mesh)), batch, limit=None)
    assert parts.gradients == held.parameters + held.gradients
    assert held.batch == 32
    assert held.total == held.parameters + held.gradients + held.optimizer + 32
    assert held.over == held.total - 1000
    assert held.activations is None


@pytest.mark.parametrize(
    ("message", "refusal"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (56.00G) exceeds available HBM (15.75G).",
            Refusal(56 * GIB, int(15.75 * GIB)),
        ),
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory "
            "space hbm. Used 107.40G of 95.74G hbm. Exceeded hbm capacity by 11.66G.",
            Refusal(int(107.4 * GIB), int(95.74 * GIB)),
        ),
        ("INVALID_ARGUMENT: something else", None),
    ],
)
def test_the_compilers_refusal_is_read(message, refusal):
    assert parse_refusal(message) == refusal


def test_a_refused_program_is_over_by_what_the_compiler_says():
    setup, batch = setup_of(data=8), {}
    held = memory.of_refusal(Refusal(3 * GIB, 2 * GIB), setup, batch)
    assert held.over == GIB
    assert held.total == 3 * GIB
    assert held.parameters + held.optimizer + held.gradients + held.activations == held.total
