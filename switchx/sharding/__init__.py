"""Where is it computed? The mesh, the table from logical axes to it, and constraints."""

from switchx.sharding.axes import LOGICAL_AXES, batch_sharding, constrain, spec
from switchx.sharding.mesh import MESH_AXES, MeshConfig, describe, make_mesh

__all__ = [
    "LOGICAL_AXES",
    "MESH_AXES",
    "MeshConfig",
    "batch_sharding",
    "constrain",
    "describe",
    "make_mesh",
    "spec",
]
