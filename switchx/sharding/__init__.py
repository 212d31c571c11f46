"""Where is it computed? The mesh, the tables from logical axes to it, constraints, hosts."""

from switchx.sharding.axes import (
    LOGICAL_AXES,
    batch_sharding,
    batch_shards,
    constrain,
    expert_copies,
    gathered,
    spec,
    state_spec,
)
from switchx.sharding.mesh import (
    MESH_AXES,
    MeshConfig,
    describe,
    in_force,
    make_mesh,
    mesh_table,
    num_slices,
    platform,
)

__all__ = [
    "LOGICAL_AXES",
    "MESH_AXES",
    "MeshConfig",
    "batch_sharding",
    "batch_shards",
    "constrain",
    "describe",
    "expert_copies",
    "gathered",
    "in_force",
    "make_mesh",
    "mesh_table",
    "num_slices",
    "platform",
    "spec",
    "state_spec",
]
