"""What training minimises: a function of parameters, constants, a batch and noise.

The step, microbatches, plan, evaluation and checkpoints do not know which objective it is. A new
one is a file here and a line in OBJECTIVES, by whose name `RunConfig.objective` asks for it.
"""

from collections.abc import Callable
from typing import Any, Protocol

import jax
from jax.sharding import AbstractMesh, Mesh

from switchx.model import Model, Noise, Params
from switchx.training.config import RunConfig
from switchx.training.objectives.distillation import Distillation
from switchx.training.objectives.outcome import Outcome
from switchx.training.objectives.pretraining import Pretraining

__all__ = ["OBJECTIVES", "Distillation", "Objective", "Outcome", "Pretraining"]


class Objective(Protocol):
    """What is minimised. Pure but for `constants`, which may read files."""

    def abstract_constants(self, mesh: Mesh | AbstractMesh) -> Any:
        """Shapes and shardings (jax.ShapeDtypeStruct) of arrays that stay as they are.

        A teacher's parameters, for example: no gradient is taken of them, they are never donated
        to the step, and no checkpoint holds them.
        """
        ...

    def constants(self, mesh: Mesh) -> Any:
        """These arrays, each where `abstract_constants` says."""
        ...

    def weight(self, batch: dict[str, Any]) -> jax.Array:
        """What the sums of a whole batch are divided by, float32 scalar; at least 1 is taken."""
        ...

    def __call__(
        self,
        params: Params,
        constants: Any,
        batch: dict[str, Any],
        noise: Noise,
        step: jax.Array | None = None,
    ) -> Outcome:
        """Of a batch or a part of it.

        Args:
          noise: keys of the batch's rows; NO_NOISE evaluates, without dropout, jitter, smoothing.
          step: the training step's, int32 scalar; None in an evaluation.
        """
        ...

    def ranges(
        self, params: Params, constants: Any, batch: dict[str, Any], noise: Noise
    ) -> dict[str, Any]:
        """What its model computes of the same: {"encoder": ..., "decoder": ...}, see model.Output.

        Called only where a loss is not finite.
        """
        ...


OBJECTIVES: dict[str, Callable[[RunConfig, Model], Objective]] = {
    "pretraining": Pretraining.of,
    "distill": Distillation.of,
}
