"""How much the tokens of some texts use each expert, layer by layer."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from switchx.data.batches import targets_of
from switchx.evaluation.inspection.seen import look, recorded_pass
from switchx.model import ModelConfig, Params
from switchx.training.batches import HostBatch, put_batch
from switchx.training.metrics import layer_names
from switchx.training.state import Setup


@dataclasses.dataclass(frozen=True)
class Use:
    """Of the experts of one layer, or of its attention.

    Attributes:
      name: of `switchx.training.metrics.layer_names`.
      load_E: float64, each expert's share of the tokens' choices, before any expert is full.
      load_gate_E: float64, the same with each choice weighted by its gate.
    """

    name: str
    load_E: np.ndarray
    load_gate_E: np.ndarray

    def by(self, criterion: str) -> np.ndarray:
        """float64 [E], what a criterion ranks the experts by: a choice's mean gate is "gate"."""
        if criterion == "gate":
            return self.load_gate_E / np.where(self.load_E > 0, self.load_E, 1.0)
        return {"load": self.load_E, "load_gate": self.load_gate_E}[criterion]


def usage(
    setup: Setup,
    params: Params,
    batches: Iterable[HostBatch],
    read: Callable[[], None] = lambda: None,
) -> list[Use]:
    """What the tokens of some batches use, as evaluation routes them; padding uses nothing.

    Each layer's load sums to 1, or to 0 where no token comes by.

    Args:
      read: is called after each batch.
    """
    switch = setup.model.config.switch
    if switch is None:
        return []
    E, names = switch.num_experts, layer_names(setup.model.config)
    count_NE, gate_NE = np.zeros((len(names), E)), np.zeros((len(names), E))
    for batch in batches:
        seen = look(setup, params, [[batch]])
        layers = ((stack, n) for stack in seen for n in range(len(stack.layers)))
        for row, (stack, n) in enumerate(layers):
            expert_TJ, gate_TJ, asked_TJ = stack.asked(n, switch)
            chosen, gates = expert_TJ[asked_TJ], gate_TJ[asked_TJ]
            count_NE[row] += np.bincount(chosen, minlength=E)
            gate_NE[row] += np.bincount(chosen, gates, minlength=E)
        read()
    total_N1 = np.maximum(count_NE.sum(axis=1, keepdims=True), 1.0)
    rows = zip(names, count_NE / total_N1, gate_NE / total_N1, strict=True)
    return [Use(*row) for row in rows]


def mean_use(sources: Sequence[Sequence[Use]]) -> list[Use]:
    """Of several texts, each of which counts alike whatever its length."""
    return [
        Use(
            of[0].name,
            np.mean([use.load_E for use in of], axis=0),
            np.mean([use.load_gate_E for use in of], axis=0),
        )
        for of in zip(*sources, strict=True)
    ]


def probability_left(
    setup: Setup, params: Params, batches: Iterable[HostBatch], kept_NE: np.ndarray
) -> np.ndarray:
    """What remains of the routers' probability with some experts alone.

    Args:
      kept_NE: bool, these experts of each layer, in the order of `layer_names`.

    Returns:
      float64 [N, E]: the mean, over the tokens whose likeliest of them an expert is, of all their
      probabilities together; 1 for an expert of no token.
    """
    sums = np.zeros((2, *kept_NE.shape))
    for batch in batches:
        with jax.set_mesh(setup.mesh):
            found = _left(setup.model.config, params, put_batch(batch, setup), kept_NE)
        sums += np.asarray(jax.device_get(found), np.float64)
    count_NE, left_NE = sums
    return np.where(count_NE > 0, left_NE / np.maximum(count_NE, 1), 1.0)


@functools.partial(jax.jit, static_argnames="config")
def _left(config: ModelConfig, params: Params, batch: dict, kept_NE: jax.Array) -> jax.Array:
    """[2, N, E]: how many tokens, and their sums."""
    groupings, output = recorded_pass(config, params, batch)
    read_BM, (target_BL, _) = batch["encoder_input_tokens"], targets_of(batch)
    stacks = [
        (output.encoder_N, groupings.encoder, read_BM > 0),
        (output.decoder_N, groupings.decoder, target_BL > 0),
    ]
    found, first = [], 0
    for record_N, grouping, real_BL in stacks:
        if record_N is None:
            continue
        probs_NBLE, scores_NBLE = (
            grouping.by_token(x, *real_BL.shape) for x in (record_N.probs_GSE, record_N.score_GSE)
        )
        N, *_, E = probs_NBLE.shape
        own_N11E = kept_NE[first : first + N, None, None]
        chosen_NBL = jnp.argmax(jnp.where(own_N11E, scores_NBLE, -jnp.inf), axis=-1)
        chosen_NBLE = jax.nn.one_hot(chosen_NBL, E) * real_BL[..., None]
        left_NBL1 = jnp.where(own_N11E, probs_NBLE, 0.0).sum(-1, keepdims=True)
        found.append([x.sum((1, 2)) for x in (chosen_NBLE, chosen_NBLE * left_NBL1)])
        first += N
    return jnp.stack([jnp.concatenate(parts) for parts in zip(*found, strict=True)])
