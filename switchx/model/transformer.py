"""The encoder-decoder: embeddings, two stacks, logits."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from switchx.model.attention import RelativePositionBias
from switchx.model.blocks import Block, DecoderContext, DecoderLayer, EncoderContext, EncoderLayer
from switchx.model.config import ModelConfig
from switchx.model.layers import Embedding, RMSNorm
from switchx.model.noise import Noise, dropout
from switchx.model.routing_stats import RoutingStats
from switchx.model.stack import Stack
from switchx.model.switch_layer import Grouping
from switchx.sharding import constrain


@dataclasses.dataclass(frozen=True)
class Output:
    """logits_BLV, float32; statistics of all switch layers, [N, ...], the encoder's first."""

    logits_BLV: jax.Array
    stats_N: RoutingStats | None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Segments:
    """Which of the examples packed into a row a token is of: int32 1, 2, ...; 0 is padding."""

    encoder_BM: jax.Array
    decoder_BL: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DecodeState:
    """What generation carries from token to token.

    Attributes:
      cache_N: the decoder blocks' caches; every array has the batch as its second dimension.
      encoder_mask_BM: bool, real encoder tokens.
      bias_HLL: self-attention's bias over the whole output.
    """

    cache_N: Any
    encoder_mask_BM: jax.Array
    bias_HLL: jax.Array


class Transformer(nnx.Module):
    """T5 with switch layers. Token 0 is padding in the encoder."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.config = config
        self.embedding = Embedding(config, rngs)
        self.encoder_bias = RelativePositionBias(config, True, rngs)
        self.encoder = Stack(config, functools.partial(Block, config, EncoderLayer), rngs)
        self.encoder_norm = RMSNorm(config, rngs)
        self.decoder_bias = RelativePositionBias(config, False, rngs)
        self.decoder = Stack(config, functools.partial(Block, config, DecoderLayer), rngs)
        self.decoder_norm = RMSNorm(config, rngs)

    def __call__(
        self,
        encoder_token_BM: jax.Array,
        decoder_token_BL: jax.Array,
        decoder_mask_BL: jax.Array,
        noise: Noise | None,
        segments: Segments | None = None,
    ) -> Output:
        """Logits of every next token.

        Args:
          encoder_token_BM, decoder_token_BL: int32; the decoder's begin with the start token.
          decoder_mask_BL: bool, positions whose target is real; the others are not routed.
          noise: keys per row while training; None for evaluation.
          segments: of rows that hold several examples, none of which sees another; None where
            each row is one.
        """
        train = noise is not None
        enc, dec = (None, None) if noise is None else (noise.fold(0), noise.fold(1))
        encoder_groups, decoder_groups = self._groupings(train)
        encoder_segment_BM = None if segments is None else segments.encoder_BM
        encoded_BMD, stats = self.encode(encoder_token_BM, encoder_groups, enc, encoder_segment_BM)

        L = decoder_token_BL.shape[1]
        visible_BLL = jnp.tril(jnp.ones((1, L, L), bool))
        encoder_visible_BLM = (encoder_token_BM > 0)[:, None]
        if segments is not None:
            visible_BLL = visible_BLL & _same_segment(segments.decoder_BL, segments.decoder_BL)
            encoder_visible_BLM = _same_segment(segments.decoder_BL, segments.encoder_BM)
        context = DecoderContext(
            bias_HLM=self.decoder_bias(L, L),
            visible_BLM=visible_BLL,
            mask_BL=decoder_mask_BL,
            encoded_BMD=encoded_BMD,
            encoder_visible_BLM=encoder_visible_BLM,
            grouping=decoder_groups,
        )
        x_BLD = self._embed(decoder_token_BL, dec)
        x_BLD, decoder_stats, _ = self.decoder(x_BLD, context, dec)
        x_BLD = self._finish(self.decoder_norm(x_BLD), dec)
        if stats is not None:
            stats = jax.tree.map(lambda *rows: jnp.concatenate(rows), stats, decoder_stats)
        return Output(self.embedding.logits(x_BLD), stats)

    def encode(
        self,
        token_BM: jax.Array,
        grouping: Grouping | None,
        noise: Noise | None,
        segment_BM: jax.Array | None = None,
    ) -> tuple[jax.Array, RoutingStats | None]:
        """[B, M] tokens to [B, M, D] and the encoder's statistics, [N, ...]."""
        M, real_BM = token_BM.shape[1], token_BM > 0
        visible_BMM = real_BM[:, None]
        if segment_BM is not None:
            visible_BMM = _same_segment(segment_BM, segment_BM)
        context = EncoderContext(self.encoder_bias(M, M), visible_BMM, real_BM, grouping)
        x_BMD = self._embed(token_BM, noise)
        x_BMD, stats, _ = self.encoder(x_BMD, context, noise)
        return self._finish(self.encoder_norm(x_BMD), noise), stats

    def start_decoding(self, encoder_token_BM: jax.Array, length: int) -> DecodeState:
        """Encodes, and prepares to generate up to `length` tokens.

        Each sequence is a group of its own and nothing is dropped, so an answer does not depend
        on its neighbours in the batch.
        """
        M = encoder_token_BM.shape[1]
        switch = self.config.switch
        grouping = None if switch is None else Grouping.for_answers(switch, M, causal=False)
        encoded_BMD, _ = self.encode(encoder_token_BM, grouping, None)
        graphdef, params_N = nnx.split(self.decoder.blocks)

        def start(params: Any) -> Any:
            block = nnx.merge(graphdef, params)
            return [layer.start_cache(encoded_BMD, length) for layer in block.layers]

        cache_N = jax.lax.map(start, params_N)
        return DecodeState(cache_N, encoder_token_BM > 0, self.decoder_bias(length, length))

    def decode_step(
        self, token_B: jax.Array, position: jax.Array, state: DecodeState
    ) -> tuple[jax.Array, DecodeState]:
        """Float32 logits [B, V] of the token after `token_B`, which stands at `position`."""
        length, switch = state.bias_HLL.shape[-1], self.config.switch
        context = DecoderContext(
            bias_HLM=jax.lax.dynamic_slice_in_dim(state.bias_HLL, position, 1, axis=1),
            visible_BLM=(jnp.arange(length) <= position)[None, None],
            mask_BL=jnp.ones((token_B.shape[0], 1), bool),
            encoded_BMD=None,
            encoder_visible_BLM=state.encoder_mask_BM[:, None],
            grouping=None if switch is None else Grouping.for_answers(switch, 1, causal=True),
            position=position,
        )
        x_B1D = self._embed(token_B[:, None], None)
        x_B1D, _, cache_N = self.decoder(x_B1D, context, None, state.cache_N)
        logits_B1V = self.embedding.logits(self.decoder_norm(x_B1D))
        return logits_B1V[:, 0], dataclasses.replace(state, cache_N=cache_N)

    def _groupings(self, train: bool) -> tuple[Grouping | None, Grouping | None]:
        switch = self.config.switch
        if switch is None:
            return None, None
        encoder = Grouping.of(switch, causal=False, train=train)
        return encoder, Grouping.of(switch, causal=True, train=train)

    def _embed(self, token_BL: jax.Array, noise: Noise | None) -> jax.Array:
        x_BLD = constrain(self.embedding.embed(token_BL), "batch", None, "embed")
        noise = None if noise is None else noise.fold(1000)
        return dropout(x_BLD, self.config.dropout_rate, noise, shared_axis=1)

    def _finish(self, x_BLD: jax.Array, noise: Noise | None) -> jax.Array:
        noise = None if noise is None else noise.fold(1001)
        return dropout(x_BLD, self.config.dropout_rate, noise, shared_axis=1)


def _same_segment(segment_BL: jax.Array, other_BM: jax.Array) -> jax.Array:
    """bool [B, L, M]: whether a token and another are of one example; padding is of none."""
    return (segment_BL[:, :, None] == other_BM[:, None]) & (other_BM[:, None] > 0)
