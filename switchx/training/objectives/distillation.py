"""Distillation: pretraining with a share of the loss against a teacher's distributions."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh

from switchx.data.batches import targets_of
from switchx.model import NO_NOISE, Model, Noise, Params
from switchx.training.config import RunConfig
from switchx.training.objectives.losses import soft_sums
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

    Attributes:
      student: its own objective.
      answers: the teacher's model.
    """

    student: Pretraining
    answers: Pretraining
    teacher: Teacher
    fully_sharded: bool

    @classmethod
    def of(cls, run: RunConfig, model: Model) -> "Distillation":
        assert run.teacher is not None  # `switchx.api.teaching` finds it
        answers = Pretraining(Model.of(run.teacher.model), 0.0, 0.0)
        return cls(Pretraining.of(run, model), answers, run.teacher, run.mesh.fully_sharded)

    def abstract_constants(self, mesh: Mesh | AbstractMesh) -> Params:
        """The teacher's parameters where the same of a student would lie."""
        if not self.teacher.config.share:
            return {}
        return jax.tree_util.tree_map_with_path(self._stored, self._restored_as(mesh))

    def constants(self, mesh: Mesh) -> Params:
        """See Objective.

        Raises:
          RunError: the checkpoint is damaged.
        """
        if not self.teacher.config.share:
            return {}
        # Orbax is no part of a plan.
        from switchx.training.checkpoints.reading import restore_params_to

        teacher = self.teacher
        found, _ = restore_params_to(
            self._restored_as(mesh), teacher.model, teacher.model_dir, teacher.step
        )
        leaves, tree = jax.tree.flatten(found)
        del found  # so that each goes once it has its other type
        types = [leaf.dtype for leaf in jax.tree.leaves(self.abstract_constants(mesh))]
        return jax.tree.unflatten(tree, [leaves.pop(0).astype(dtype) for dtype in types])

    def _restored_as(self, mesh: Mesh | AbstractMesh) -> Params:
        return abstract_params(self.answers.model, mesh, self.fully_sharded)

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
        if not self.teacher.config.share:
            return outcome
        with jax.named_scope("teacher"):
            taught = self.answers.output(constants, batch, NO_NOISE).logits_BLV
        taught_BLV = jax.lax.stop_gradient(taught)
        T = self.teacher.config.temperature
        soft = soft_sums(output.logits_BLV, taught_BLV, targets_of(batch)[1], T)
        sums = outcome.sums
        hard = sums["objective"] - sums["z_loss"]
        # With a share of 0 this is the student's own to the bit.
        objective = sums["objective"] + self._share(step) * (T * T * soft["soft"] - hard)
        sums = {**sums, "objective": objective, "teacher_kl": soft["teacher_kl"]}
        return dataclasses.replace(outcome, sums=sums)

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
