"""A teacher's logits for batches, to be written: the same function as that of an online teacher."""

from collections.abc import Callable
from typing import Any, cast

import jax
from jax.sharding import NamedSharding, PartitionSpec

from switchx.data.taught.records import IDS, LOGITS, arrays_of
from switchx.training.batches import Batch, HostBatch, abstract_batch, put_rows
from switchx.training.objectives.distillation import Distillation
from switchx.training.objectives.losses import grouped
from switchx.training.state import Setup
from switchx.training.step import join_rows, split_rows


def compile_teacher(setup: Setup, top_k: int) -> Callable[[HostBatch], HostBatch]:
    """Compiles from this host's rows of a batch to all rows with the logits, on every host.

    The same tokens share a group, and the same overflow, as where the teacher computes beside the
    student. As in its step, a part of the batch is computed at a time, in so many microbatches.

    Args:
      setup: of a run that distils and whose teacher computes.
    """
    mesh, parts = setup.mesh, setup.run.trainer.microbatches
    objective = cast(Distillation, setup.objective)
    id_type = arrays_of(top_k, setup.run.model.vocab_size)[IDS][1]

    def likeliest(constants: Any, batch: Batch) -> dict[str, jax.Array]:
        logits_BLV = objective.teacher_logits(constants, batch)
        id_BLK = jax.lax.top_k(logits_BLV, top_k)[1]
        return {IDS: id_BLK.astype(id_type), LOGITS: grouped(logits_BLV, id_BLK)}

    def teach(constants: Any, batch: Batch) -> Batch:
        if parts == 1:
            return batch | likeliest(constants, batch)
        split = jax.tree.map(lambda x: split_rows(x, parts, mesh), batch)
        found = jax.lax.map(lambda part: likeliest(constants, part), split)
        return batch | jax.tree.map(lambda x: join_rows(x, mesh), found)

    with jax.set_mesh(mesh):
        abstract = abstract_batch(setup.run.batch, setup)
        constants = objective.abstract_constants(mesh)
        everywhere = NamedSharding(mesh, PartitionSpec())  # the first host writes
        compiled = jax.jit(teach, out_shardings=everywhere).lower(constants, abstract).compile()

    def call(rows: HostBatch) -> HostBatch:
        return jax.device_get(compiled(setup.constants, put_rows(rows, setup)))

    return call
