"""What a configuration amounts to, without building any of it: counts, FLOPs, bytes."""

import collections
import dataclasses
from typing import cast

from jax.sharding import AbstractMesh, Mesh

from switchx.errors import UserError
from switchx.model import Model, ModelConfig, Params, forward_flops
from switchx.model.counts import parameters_per_token
from switchx.model.groups import group_of
from switchx.model.router import expert_capacity
from switchx.model.routing import Capacity
from switchx.sharding import MESH_AXES, MeshConfig
from switchx.training.adapting import named
from switchx.training.checks import check_run
from switchx.training.config import RunConfig
from switchx.training.freezing import num_trained, step_flops
from switchx.training.placing import bytes_per_device
from switchx.training.state import Setup

DENSE = "dense feed-forward"
GROUPS = ("embedding", "attention", DENSE, "experts", "router", "norms")  # as they are shown


@dataclasses.dataclass(frozen=True)
class Bytes:
    """Bytes of everything that stays in memory, over all devices or on one."""

    parameters: int
    gradients: int
    optimizer: int

    @property
    def total(self) -> int:
        return self.parameters + self.gradients + self.optimizer


@dataclasses.dataclass(frozen=True)
class Summary:
    """Figures of a run.

    Attributes:
      parameters: per group of GROUPS.
      parameters_trained: without those of FREEZE.
      parameters_per_token: without the experts that a token does not use.
      forward_flops: of one sequence.
      step_flops: of one training step, backward pass included.
      capacity: slots per expert, or pool of experts, and group, by stack with experts and by
        "train" and "eval"; nothing where no tokens are dropped.
      memory: of one copy of the state.
      memory_per_device: of one device's part; None where the mesh is left open or where
        something does not divide over it.
    """

    parameters: dict[str, int]
    parameters_trained: int
    parameters_per_token: int
    forward_flops: int
    step_flops: int
    capacity: dict[str, dict[str, Capacity]]
    memory: Bytes
    memory_per_device: Bytes | None

    @property
    def num_parameters(self) -> int:
        return sum(self.parameters.values())

    @classmethod
    def of(cls, run: RunConfig) -> "Summary":
        """Traces the model and the optimizer; allocates nothing, whatever their size."""
        model, batch = Model.of(run.model), run.batch
        lengths = (batch.input_length, batch.target_length)
        parameters = parameters_by_group(model.shapes)
        whole = _memory(run, AbstractMesh((1,) * len(MESH_AXES), MESH_AXES))
        assert whole is not None  # anything divides by one
        return cls(
            parameters=parameters,
            parameters_trained=num_trained(model.shapes, run.optimizer.frozen),
            parameters_per_token=parameters_per_token(run.model),
            forward_flops=forward_flops(run.model, *lengths),
            step_flops=step_flops(run, model),
            capacity=_capacity(run.model),
            memory=whole,
            memory_per_device=_memory(run, abstract_mesh(run.mesh)),
        )


def parameters_by_group(shapes: Params) -> dict[str, int]:
    """Number of parameters in each of GROUPS."""
    counts = collections.Counter(dict.fromkeys(GROUPS, 0))
    for name, leaf in named(shapes).items():
        group = group_of(name)
        counts[DENSE if group == "dense" else group] += leaf.size
    return dict(counts)


def _capacity(model: ModelConfig) -> dict[str, dict[str, Capacity]]:
    switch = model.switch
    if switch is None or switch.dropless:
        return {}
    sizes = {"encoder": switch.encoder_group_size, "decoder": switch.decoder_group_size}
    return {
        stack: {
            "group_size": size,
            "train": expert_capacity(switch, size, train=True),
            "eval": expert_capacity(switch, size, train=False),
        }
        for stack, size in sizes.items()
        if stack in model.stacks and model.stacks[stack].num_sparse
    }


def abstract_mesh(config: MeshConfig) -> AbstractMesh | None:
    """The configured mesh without devices; None where its sizes depend on how many there are.

    MESH_DATA may stay open where no part of the state is split over it.
    """
    sizes = {axis: getattr(config, axis) for axis in MESH_AXES}
    if sizes["data"] == -1 and not config.fully_sharded:
        sizes["data"] = 1
    return None if min(sizes.values()) < 1 else AbstractMesh(tuple(sizes.values()), MESH_AXES)


def _memory(run: RunConfig, mesh: AbstractMesh | None) -> Bytes | None:
    """On one device of a mesh; None without one, and where something does not divide over it."""
    if mesh is None:
        return None
    try:
        setup = Setup.of(run, mesh)
        params, opt_state = setup.abstract.params, setup.abstract.opt_state
        return Bytes(*map(bytes_per_device, (params, setup.trained(params), opt_state)))
    except ValueError:  # of shard_shape
        return None


def refusal(run: RunConfig) -> str | None:
    """Why this run would be refused on the mesh it names, if it would; None where that is open."""
    mesh = abstract_mesh(run.mesh)
    if mesh is not None:
        try:
            check_run(run, cast(Mesh, mesh))  # it asks for the sizes alone
        except UserError as error:
            return str(error)
    return None
