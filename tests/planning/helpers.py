"""Small runs to plan, and their compiled steps."""

from collections.abc import Sequence
from typing import Any

import jax

from switchx.sharding import MeshConfig, make_mesh
from switchx.training import BatchShape, OptimizerConfig, RunConfig, TrainerConfig
from switchx.training.state import Setup
from switchx.training.step import lower_train_step
from tests.helpers import switch_config, tiny_config

# Each size is of one thing only, and 8 devices divide what they share out.
BATCH, INPUTS, TARGETS = 32, 24, 12
D, F, H, K, V, E = 24, 48, 8, 5, 72, 8


def setup(
    mesh: MeshConfig | None = None,
    switch: dict[str, Any] | None = None,
    devices: Sequence[jax.Device] | None = None,
    frozen: Sequence[str] = (),
    **model: Any,
) -> Setup:
    """One layer in each stack. Without `mesh` on one device, without `switch` dense."""
    sizes = dict(d_model=D, d_ff=F, d_kv=K, num_heads=H, vocab_size=V, num_layers=1)
    experts = None
    if switch is not None:
        groups = dict(encoder_group_size=INPUTS, decoder_group_size=TARGETS)
        experts = switch_config(**{**groups, "num_experts": E, "every": 1, **switch})
    config = tiny_config(**{**sizes, **model}, switch=experts)
    shape = BatchShape(BATCH, INPUTS, TARGETS)
    run = RunConfig(
        config,
        shape,
        shape,
        TrainerConfig(10),
        OptimizerConfig(frozen=tuple(frozen)),
        mesh or MeshConfig(),
    )
    return Setup.of(run, make_mesh(run.mesh, devices or jax.devices()[: None if mesh else 1]))


def compiled_text(setup: Setup) -> str:
    """The step's program."""
    return lower_train_step(setup).compile().as_text()
