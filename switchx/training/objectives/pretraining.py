"""Pretraining: cross-entropy of the target tokens with the routers' auxiliary losses."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh

from switchx.data.batches import targets_of
from switchx.model import (
    Groupings,
    Model,
    ModelConfig,
    Noise,
    Output,
    Params,
    RoutingStats,
    Segments,
)
from switchx.training.config import RunConfig
from switchx.training.objectives.losses import token_sums
from switchx.training.objectives.outcome import Outcome


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """Cross-entropy, with label smoothing in training, the logits' z-loss and the routers' losses.

    Targets are a decoder's next tokens, or what is masked in the inputs of an encoder alone. It
    has no constants.
    """

    model: Model
    label_smoothing: float
    z_loss: float

    @classmethod
    def of(cls, run: RunConfig, model: Model) -> "Pretraining":
        return cls(model, run.trainer.label_smoothing, run.trainer.z_loss)

    def abstract_constants(self, mesh: Mesh | AbstractMesh) -> dict[str, Any]:
        return {}

    def constants(self, mesh: Mesh) -> dict[str, Any]:
        return {}

    def weight(self, batch: dict[str, Any]) -> jax.Array:
        """Target tokens that count."""
        return jnp.sum(targets_of(batch)[1])

    def __call__(
        self,
        params: Params,
        constants: Any,
        batch: dict[str, Any],
        noise: Noise,
        step: jax.Array | None = None,
    ) -> Outcome:
        return self.outcome(self.output(params, batch, noise), batch, noise)

    def outcome(self, output: Output, batch: dict[str, Any], noise: Noise) -> Outcome:
        """Of what the model computed of a batch, or of a part of it."""
        sums = token_sums(
            output.logits_BLV,
            *targets_of(batch),
            0.0 if noise.silent else self.label_smoothing,
            self.z_loss,
        )
        penalty = routing_loss(self.model.config, output.stats_N)
        return Outcome(sums, penalty, output.stats_N)

    def ranges(
        self, params: Params, constants: Any, batch: dict[str, Any], noise: Noise
    ) -> dict[str, Any]:
        """See Objective."""
        groupings = Groupings.of(self.model.config.switch, train=not noise.silent).watched()
        output = self.output(params, batch, noise, groupings)
        both = {"encoder": output.encoder_ranges, "decoder": output.decoder_ranges}
        return {stack: both[stack] for stack in self.model.config.stacks}

    def output(
        self,
        params: Params,
        batch: dict[str, Any],
        noise: Noise,
        groupings: Groupings | None = None,
    ) -> Output:
        """What the model computes of a batch; NO_NOISE evaluates, with evaluation's capacities."""
        if self.model.config.encoder_alone:
            tokens, segment_BL = batch["encoder_input_tokens"], batch.get("encoder_segment_ids")
            return self.model.bind(params).at_inputs(tokens, noise, segment_BL, groupings)
        segments = None
        if "encoder_segment_ids" in batch:
            segments = Segments(batch["encoder_segment_ids"], batch["decoder_segment_ids"])
        return self.model.bind(params)(
            batch["encoder_input_tokens"],
            batch["decoder_input_tokens"],
            batch["decoder_target_tokens"] > 0,
            noise,
            segments,
            groupings,
        )


def routing_loss(config: ModelConfig, stats: RoutingStats | None) -> jax.Array:
    """alpha times the balance losses plus the weighted z-losses, each summed over layers.

    A balance loss over the batch is the step's to add (`switchx.training.balance`).
    """
    if config.switch is None or stats is None:
        return jnp.zeros((), jnp.float32)
    of_groups = config.switch.balance_loss_over == "group"
    weight = config.switch.balance_loss_weight if of_groups else 0.0
    balance = weight * jnp.sum(stats.balance_loss)
    return balance + config.switch.router_z_loss_weight * jnp.sum(stats.z_loss)
