"""Where a trained model sends each token of given texts."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from switchx.errors import UserError
from switchx.inference.scoring import start_token_first
from switchx.model import NO_NOISE, Groupings, Model, ModelConfig, Output, Params, SwitchConfig

Array = Any  # of NumPy, or within jit of JAX


class Choices(NamedTuple):
    """Of the switch layers of one stack, in order: what became of each token's J choices.

    Attributes:
      expert_NBLJ: int32, the expert.
      gate_NBLJ: float32, the weight of its output; 0 where it is not kept.
      kept_NBLJ: bool; False for padding, for a second choice that the policy does not want, and,
        where experts choose (choice j is expert j then), for a token that the expert did not take.
      likely_NBLK: int32, the experts that the token ranks first, the likeliest by the router unless
        it has a bias for the choice: one more than a token chooses, if there are so many; the last
        is the runner-up.
      prob_NBLK: float32, their probabilities.
      entropy_NBL: float32, of the router's distribution, nats.
    """

    expert_NBLJ: Array
    gate_NBLJ: Array
    kept_NBLJ: Array
    likely_NBLK: Array
    prob_NBLK: Array
    entropy_NBL: Array


class Routing(NamedTuple):
    """Of both stacks; with experts in attention, each layer's attention comes first.

    The decoder of an encoder alone has no layers.
    """

    encoder: Choices
    decoder: Choices


def routing(
    model: Model,
    params: Params,
    encoder_token_BM: np.ndarray | jax.Array,
    decoder_token_BL: np.ndarray | jax.Array,
) -> Routing:
    """The experts of every token in every switch layer, as the model answers: nothing is dropped.

    Args:
      encoder_token_BM, decoder_token_BL: int32, 0 is padding. The decoder's are an answer, its
        end of sequence included, without a start token: what position l shows is the token that
        the decoder reads there, so the start token at 0, and the answer's token l - 1 behind it.

    Raises:
      UserError: the model is dense.
    """
    if model.config.switch is None:
        raise UserError(
            "ModelConfig.switch=None is a dense model, which routes nothing: use one with experts."
        )
    tokens = tuple(map(jnp.asarray, (encoder_token_BM, decoder_token_BL)))
    return jax.device_get(_routing(model.config, params, *tokens))


@functools.partial(jax.jit, static_argnames="config")
def _routing(
    config: ModelConfig, params: Params, encoder_token_BM: jax.Array, decoder_token_BL: jax.Array
) -> Routing:
    lengths = encoder_token_BM.shape[1], decoder_token_BL.shape[1]
    groupings = Groupings.for_answers(config.switch, *lengths)
    module = Model.of(config).bind(params)
    if config.encoder_alone:
        output = module.at_inputs(encoder_token_BM, NO_NOISE, groupings=groupings.recorded())
        return recorded(config.switch, groupings, output, encoder_token_BM.shape, lengths[1])
    output = module(
        encoder_token_BM,
        start_token_first(decoder_token_BL),
        decoder_token_BL > 0,
        NO_NOISE,
        groupings=groupings.recorded(),
    )
    return recorded(config.switch, groupings, output, encoder_token_BM.shape, lengths[1])


def recorded(
    switch: SwitchConfig | None,
    groupings: Groupings,
    output: Output,
    encoder_shape: tuple[int, ...],
    target_length: int,
) -> Routing:
    """What a forward pass recorded, token by token; to be called within jit.

    Args:
      groupings: of that pass.
      encoder_shape: of its encoder's tokens, [B, M].
    """
    B, M = encoder_shape
    top_k = 1 if switch is None else switch.top_k
    stacks = [
        (groupings.encoder, output.encoder_N, M),
        (groupings.decoder, output.decoder_N, target_length),
    ]
    found = []
    for grouping, record_N, L in stacks:
        if record_N is None:  # no experts
            found.append(_nothing(B, L))
            continue
        chosen = record_N.assignment
        arrays = chosen.expert_GSJ, chosen.gate_GSJ, chosen.kept_GSJ
        expert, gate, kept, probs, scores = (
            grouping.by_token(x, B, L) for x in (*arrays, record_N.probs_GSE, record_N.score_GSE)
        )
        entropy_NBL = -jnp.sum(jax.scipy.special.xlogy(probs, probs), axis=-1)
        likely_NBLK = jax.lax.top_k(scores, min(top_k + 1, probs.shape[-1]))[1]
        prob_NBLK = jnp.take_along_axis(probs, likely_NBLK, axis=-1)
        found.append(Choices(expert, gate, kept, likely_NBLK, prob_NBLK, entropy_NBL))
    return Routing(*found)


def _nothing(B: int, L: int) -> Choices:
    def empty(dtype: type, *last: int) -> np.ndarray:
        return np.zeros((0, B, L, *last), dtype)

    whole, real = empty(np.int32, 1), empty(np.float32, 1)
    return Choices(whole, real, empty(bool, 1), whole, real, empty(np.float32))
