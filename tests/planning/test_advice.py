"""What a plan that does not fit says to change: only what the run would accept."""

from switchx.planning.advice import advice
from switchx.planning.memory import Memory
from switchx.sharding import make_mesh
from tests.training.helpers import run_config

STATE = Memory(60, 1, 60, 5, 1, 1, 100)  # state and gradients take most
ACTIVATIONS = Memory(10, 1, 10, 105, 1, 1, 100)


def advised(held, **changes):
    run = run_config(**changes)
    return advice(run, make_mesh(run.mesh), held)


def test_activations_are_computed_again_or_in_parts():
    assert advised(ACTIVATIONS)[:2] == (
        "REMAT='dots' or 'full' (now 'none')",
        "MICROBATCHES=2 (now 1)",
    )
    assert advised(ACTIVATIONS, remat="dots")[0] == "REMAT='full' (now 'dots')"
    assert advised(ACTIVATIONS, remat="full")[0] == "MICROBATCHES=2 (now 1)"
    # 16 sequences over 8 devices do not divide into 4 parts.
    assert not any("MICRO" in line for line in advised(ACTIVATIONS, remat="full", microbatches=2))


def test_state_is_split_further():
    lines = advised(STATE, data=4, expert=2)
    assert lines[0] == advised(STATE, data=1, expert=8)[0] == "FULLY_SHARDED=True"
    assert "MESH_EXPERT=4 with MESH_DATA=2" in lines
    assert "MESH_MODEL=2 with MESH_DATA=2" in lines
    assert lines[-1] == "a larger topology"


def test_what_cannot_be_split_further_is_not_advised():
    everywhere = advised(STATE, data=1, expert=8, fully_sharded=True)
    assert not any("MESH" in line for line in everywhere)
    sharded = advised(STATE, data=8, expert=1, fully_sharded=True)
    assert "FULLY_SHARDED=True" not in sharded
    # Microbatches would keep a sum of gradients, more than half of these activations.
    assert everywhere == (
        "REMAT='dots' or 'full' (now 'none')",
        "a larger topology",
    )
