"""Where a trained model sends each token of given texts."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from switchx.errors import UserError
from switchx.inference.scoring import start_token_first
from switchx.model import NO_NOISE, Assignment, Groupings, Model, ModelConfig, Params


class Choices(NamedTuple):
    """Of the switch layers of one stack, in order: what became of each token's J choices.

    Attributes:
      expert_NBLJ: int32, the expert.
      gate_NBLJ: float32, the weight of its output; 0 where it is not kept.
      kept_NBLJ: bool; False for padding, for a second choice that the policy does not want, and,
        where experts choose (choice j is expert j then), for a token that the expert did not take.
    """

    expert_NBLJ: np.ndarray
    gate_NBLJ: np.ndarray
    kept_NBLJ: np.ndarray


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
    stacks = _routing(model.config, params, *tokens)
    return Routing(*(_choices(*both) for both in zip(stacks, tokens, strict=True)))


def _choices(stack: Assignment | None, token_BL: jax.Array) -> Choices:
    if stack is None:  # a stack without experts: no layers
        shape = (0, *token_BL.shape, 1)
        return Choices(
            np.zeros(shape, np.int32), np.zeros(shape, np.float32), np.zeros(shape, bool)
        )
    return Choices(*jax.device_get((stack.expert_GSJ, stack.gate_GSJ, stack.kept_GSJ)))


@functools.partial(jax.jit, static_argnames="config")
def _routing(
    config: ModelConfig, params: Params, encoder_token_BM: jax.Array, decoder_token_BL: jax.Array
) -> tuple[Assignment | None, Assignment | None]:
    # A group is a row then, so that [N, G, S, J] is [N, B, L, J].
    lengths = encoder_token_BM.shape[1], decoder_token_BL.shape[1]
    groupings = Groupings.for_answers(config.switch, *lengths).recorded()
    module = Model.of(config).bind(params)
    if config.encoder_alone:
        output = module.at_inputs(encoder_token_BM, NO_NOISE, groupings=groupings)
        return output.encoder_N, None
    output = module(
        encoder_token_BM,
        start_token_first(decoder_token_BL),
        decoder_token_BL > 0,
        NO_NOISE,
        groupings=groupings,
    )
    return output.encoder_N, output.decoder_N
