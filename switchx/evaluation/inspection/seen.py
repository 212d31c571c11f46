"""What became of every token of some batches, in every layer, as evaluation routes them."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from switchx.data.batches import targets_of
from switchx.inference.routing import Choices, Routing, recorded
from switchx.model import (
    NO_NOISE,
    Groupings,
    Model,
    ModelConfig,
    Output,
    Params,
    Segments,
    SwitchConfig,
)
from switchx.training.batches import HostBatch, put_batch
from switchx.training.metrics import layer_names
from switchx.training.state import Setup

_EXAMPLES = 2**20  # more than a batch holds


@dataclasses.dataclass(frozen=True)
class Seen:
    """The T tokens of a stack, padding left out, row by row.

    Attributes:
      name: "encoder" or "decoder".
      layers: names of those with experts.
      token_T: int32, what is read there.
      next_T: int32, what comes next: in the decoder what is to be written; 0 at an end.
      target_T: int32, what is to be written there; 0 where nothing is, as in most encoders.
      example_T: int64, one number for each example, the same in either stack.
      source_T: int64.
      nats_T: float32, the loss of the target; 0 without one.
      choices: N layers x T tokens: [N, T, J], [N, T, K], [N, T]; see `Choices`.
      experts_choose: whether choice j is expert j.
    """

    name: str
    layers: list[str]
    token_T: np.ndarray
    next_T: np.ndarray
    example_T: np.ndarray
    source_T: np.ndarray
    target_T: np.ndarray
    nats_T: np.ndarray
    choices: Choices
    experts_choose: bool

    @functools.cached_property
    def main(self) -> np.ndarray:
        """int [N, T], the expert of each token's first choice, whether it had room or not.

        Where experts choose, the one of the largest gate; -1 where none took the token.
        """
        if not self.experts_choose:
            return np.asarray(self.choices.expert_NBLJ[..., 0])
        best_NT = np.argmax(self.choices.gate_NBLJ, axis=-1)
        return np.where(self.choices.kept_NBLJ.any(axis=-1), best_NT, -1)

    @functools.cached_property
    def dropped(self) -> np.ndarray:
        """bool [N, T], no expert took the token."""
        return ~self.choices.kept_NBLJ.any(axis=-1)

    def load(self, layer: int, switch: SwitchConfig) -> np.ndarray:
        """float64 [E], each expert's share of the choices that asked for room: see `load_E`."""
        expert_TJ, _, asked_TJ = self.asked(layer, switch)
        count_E = np.bincount(expert_TJ[asked_TJ], minlength=switch.num_experts)
        return count_E / max(count_E.sum(), 1)

    def asked(self, layer: int, switch: SwitchConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Experts, the gates with room for all, and whether they were asked for room; [T, J]."""
        choices = self.choices
        if self.experts_choose:
            return choices.expert_NBLJ[layer], choices.gate_NBLJ[layer], choices.kept_NBLJ[layer]
        gate_TJ = choices.prob_NBLK[layer][:, : switch.top_k]
        if switch.top_k > 1:
            gate_TJ = gate_TJ / (gate_TJ.sum(axis=-1, keepdims=True) + 1e-9)
        asked_TJ = np.full(gate_TJ.shape, switch.second_policy == "always")
        if switch.second_policy in ("threshold", "random"):  # alike where nothing is drawn
            asked_TJ = gate_TJ > switch.second_threshold
        asked_TJ[:, 0] = True
        return choices.likely_NBLK[layer][:, : switch.top_k], gate_TJ, asked_TJ


def look(setup: Setup, params: Params, sources: Sequence[Sequence[HostBatch]]) -> list[Seen]:
    """Runs a model over the batches of each source; returns its encoder and its decoder.

    Its groups, capacities and drops are those of evaluation.
    """
    stacks = list(setup.model.config.stacks)
    columns: list[list] = [[] for _ in stacks]
    passed = 0
    for number, batches in enumerate(sources):
        for batch in batches:
            with jax.set_mesh(setup.mesh):
                found = _pass(setup.model.config, params, put_batch(batch, setup))
            routing, nats_BL = jax.device_get(found)
            for column, part in zip(columns, _stacks(batch, routing, nats_BL), strict=True):
                token_T, next_T, example_T, *rest = part
                example_T, source_T = example_T + passed * _EXAMPLES, np.full(len(token_T), number)
                column.append([token_T, next_T, example_T, source_T, *rest])
            passed += 1
    config = setup.model.config
    return [_joined(config, name, c) for name, c in zip(stacks, columns, strict=True)]


def _joined(config: ModelConfig, stack: str, column: Sequence[Sequence[Any]]) -> Seen:
    *of_tokens, of_layers = zip(*column, strict=True)
    choices = Choices(*(np.concatenate(x, axis=1) for x in zip(*of_layers, strict=True)))
    layers = [layer for layer in layer_names(config) if layer.startswith(stack)]
    chosen = config.switch is not None and config.switch.encoder_routing == "experts_choose"
    token_T, next_T, example_T, source_T, target_T, nats_T = map(np.concatenate, of_tokens)
    return Seen(
        name=stack,
        layers=layers,
        token_T=token_T,
        next_T=next_T,
        example_T=example_T,
        source_T=source_T,
        target_T=target_T,
        nats_T=nats_T,
        choices=choices,
        experts_choose=chosen and stack == "encoder",
    )


@functools.partial(jax.jit, static_argnames="config")
def _pass(config: ModelConfig, params: Params, batch: dict) -> tuple[Routing, jax.Array]:
    groupings, output = recorded_pass(config, params, batch)
    target_BL, _ = targets_of(batch)
    logp_BLV = jax.nn.log_softmax(output.logits_BLV)
    nats_BL = -jnp.take_along_axis(logp_BLV, target_BL[..., None], axis=-1)[..., 0]
    shape = batch["encoder_input_tokens"].shape
    return recorded(config.switch, groupings, output, shape, target_BL.shape[1]), nats_BL


def recorded_pass(config: ModelConfig, params: Params, batch: dict) -> tuple[Groupings, Output]:
    """Evaluation's forward pass, recorded; to be called within jit."""
    encoder_BM, (target_BL, _) = batch["encoder_input_tokens"], targets_of(batch)
    segment_BM = batch.get("encoder_segment_ids")
    groupings, module = Groupings.of(config.switch, train=False), Model.of(config).bind(params)
    if config.encoder_alone:
        recording = groupings.recorded()
        return groupings, module.at_inputs(encoder_BM, NO_NOISE, segment_BM, recording)
    output = module(
        encoder_BM,
        batch["decoder_input_tokens"],
        target_BL > 0,
        NO_NOISE,
        None if segment_BM is None else Segments(segment_BM, batch["decoder_segment_ids"]),
        groupings.recorded(),
    )
    return groupings, output


def _stacks(batch: HostBatch, routing: Routing, nats_BL: np.ndarray) -> Iterator[tuple]:
    """Of each stack there is: the columns of `Seen` without the source, examples from 0."""
    target_BL, weight_BL = targets_of(batch)
    wanted_BL = np.where(weight_BL > 0, target_BL, 0)
    read_BM, segments = batch["encoder_input_tokens"], batch.get("encoder_segment_ids")
    next_BM = _one_on(read_BM)
    if segments is not None:
        next_BM = np.where(_one_on(segments) == segments, next_BM, 0)
    most = 1 if segments is None else int(segments.max())
    nothing_BM = np.zeros_like(read_BM)
    alone = "decoder_input_tokens" not in batch
    own = (wanted_BL, nats_BL * (wanted_BL > 0)) if alone else (nothing_BM, nothing_BM * 0.0)
    yield _flat(most, segments, routing.encoder, read_BM > 0, read_BM, next_BM, *own)
    if not alone:
        arrays = batch["decoder_input_tokens"], target_BL, target_BL, nats_BL
        segments = batch.get("decoder_segment_ids")
        yield _flat(most, segments, routing.decoder, target_BL > 0, *arrays)


def _flat(
    most: int,
    segment_BL: np.ndarray | None,
    choices: Choices,
    real_BL: np.ndarray,
    token_BL: np.ndarray,
    next_BL: np.ndarray,
    *rest_BL: np.ndarray,
) -> tuple:
    """The real tokens of a batch; `most`: examples in a row."""
    number_BL = np.zeros(real_BL.shape, int) if segment_BL is None else segment_BL - 1
    example_BL = np.arange(len(real_BL))[:, None] * most + number_BL
    of_tokens = (x_BL[real_BL] for x_BL in (token_BL, next_BL, example_BL, *rest_BL))
    return (*of_tokens, Choices(*(x[:, real_BL] for x in choices)))


def _one_on(x_BM: np.ndarray) -> np.ndarray:
    return np.pad(x_BM, ((0, 0), (0, 1)))[:, 1:]
