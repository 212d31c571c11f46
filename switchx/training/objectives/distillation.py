"""Distillation: pretraining with a share of the loss against a teacher's distributions."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh

from switchx.data.batches import targets_of
from switchx.data.taught.records import IDS, LOGITS
from switchx.model import NO_NOISE, Model, Noise, Params
from switchx.training.config import RunConfig
from switchx.training.objectives.losses import grouped, soft_sums
from switchx.training.objectives.outcome import Outcome
from switchx.training.objectives.pretraining import Pretraining
from switchx.training.placing import abstract_params
from switchx.training.teacher import Teacher

_ROUTER = "router"  # float32 from end to end


@dataclasses.dataclass(frozen=True)
class Distillation:
    """(1 - share) of pretraining's loss and share T^2 CE(student / T, softmax(teacher / T)).

    As in Mesh TensorFlow's StudentTeacher, but that the teacher evaluates: without dropout and
    jitter, with evaluation's capacity. The z-loss and the routers' losses are the student's in
    full. Its constants are the teacher's parameters; without a share it has none.

    Nor has it where the teacher's logits come with the batches, of the likeliest tokens: both
    distributions are then over these and all others as one class, see `losses.grouped`. Evaluation
    batches have none, and are measured by their targets alone.

    Attributes:
      student: its own objective.
      answers: the teacher's model; None where it is not computed.
    """

    student: Pretraining
    answers: Pretraining | None
    teacher: Teacher
    fully_sharded: bool

    @classmethod
    def of(cls, run: RunConfig, model: Model) -> "Distillation":
        assert run.teacher is not None  # `switchx.api.teaching` finds it
        model_of = run.teacher.computed
        answers = Pretraining(Model.of(model_of), 0.0, 0.0) if model_of else None
        return cls(Pretraining.of(run, model), answers, run.teacher, run.mesh.fully_sharded)

    def abstract_constants(self, mesh: Mesh | AbstractMesh) -> Params:
        """The teacher's parameters where the same of a student would lie."""
        if self.answers is None:
            return {}
        restored = abstract_params(self.answers.model, mesh, self.fully_sharded)
        return jax.tree_util.tree_map_with_path(self._stored, restored)

    def constants(self, mesh: Mesh) -> Params:
        """See Objective.

        Raises:
          RunError: the checkpoint is damaged.
        """
        if self.answers is None:
            return {}
        # Orbax is no part of a plan.
        from switchx.training.checkpoints.reading import restore_params_to

        teacher, model = self.teacher, self.answers.model
        wanted = abstract_params(model, mesh, self.fully_sharded)
        found, _ = restore_params_to(wanted, model.config, teacher.model_dir, teacher.step)
        leaves, tree = jax.tree.flatten(found)
        del found  # so that each goes once it has its other type
        types = [leaf.dtype for leaf in jax.tree.leaves(self.abstract_constants(mesh))]
        return jax.tree.unflatten(tree, [leaves.pop(0).astype(dtype) for dtype in types])

    def _stored(self, path: Any, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        is_router = any(key.key == _ROUTER for key in path)
        dtype = leaf.dtype if is_router else jnp.dtype(self.teacher.config.dtype)
        return jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=leaf.sharding)

    def weight(self, batch: dict[str, Any]) -> jax.Array:
        """Target tokens that count."""
        return self.student.weight(batch)

    def __call__(
        self,
        params: Params,
        constants: Any,
        batch: dict[str, Any],
        noise: Noise,
        step: jax.Array | None = None,
    ) -> Outcome:
        output = self.student.output(params, batch, noise)
        outcome = self.student.outcome(output, batch, noise)
        if self.answers is not None:
            own, taught = output.logits_BLV, self.teacher_logits(constants, batch)
        elif LOGITS in batch:
            id_BLK = batch[IDS].astype(jnp.int32)
            own, taught = grouped(output.logits_BLV, id_BLK), batch[LOGITS]
        else:
            return outcome
        T = self.teacher.config.temperature
        soft = soft_sums(own, jax.lax.stop_gradient(taught), targets_of(batch)[1], T)
        sums = outcome.sums
        hard = sums["objective"] - sums["z_loss"]
        # With a share of 0 this is the student's own to the bit.
        objective = sums["objective"] + self._share(step) * (T * T * soft["soft"] - hard)
        sums = {**sums, "objective": objective, "teacher_kl": soft["teacher_kl"]}
        return dataclasses.replace(outcome, sums=sums)

    def teacher_logits(self, constants: Any, batch: dict[str, Any]) -> jax.Array:
        """What the teacher, which evaluates, expects at each target, float32 [B, L, V]."""
        assert self.answers is not None
        with jax.named_scope("teacher"):
            return self.answers.output(constants, batch, NO_NOISE).logits_BLV

    def _share(self, step: jax.Array | None) -> jax.Array | float:
        """Of the teacher at a step; an evaluation has it in full."""
        config = self.teacher.config
        if step is None or not config.start_step:
            return config.share
        return jnp.where(step < config.start_step, 0.0, config.share)

    def ranges(
        self, params: Params, constants: Any, batch: dict[str, Any], noise: Noise
    ) -> dict[str, Any]:
        """See Objective: the student's."""
        return self.student.ranges(params, {}, batch, noise)
