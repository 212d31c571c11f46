"""The encoder-decoder, or its encoder alone: embeddings, stacks, logits."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from switchx.errors import UserError
from switchx.model.attention import Kept, RelativePositionBias, Visibility
from switchx.model.blocks import (
    DecoderContext,
    DecoderLayer,
    EncoderContext,
    EncoderLayer,
    StepContext,
)
from switchx.model.config import ModelConfig
from switchx.model.layers import Embedding, RMSNorm
from switchx.model.noise import NO_NOISE, Noise, dropout
from switchx.model.ranges import Range
from switchx.model.routing import RoutingStats
from switchx.model.stack import Stack
from switchx.model.switch_layer import Grouping, Groupings, Record, Routed
from switchx.sharding import constrain


@dataclasses.dataclass(frozen=True)
class Output:
    """What a whole forward pass gives.

    Attributes:
      logits_BLV: float32.
      stats_N: statistics of all switch layers, [N, ...], the encoder's first; None if it is dense.
      encoder_N, decoder_N: what each stack's switch layers did with each token, [N, ...], where
        the grouping asks for it; None for a stack without any.
      encoder_ranges, decoder_ranges: where the grouping is watched, a stack's "embedding", its
        rows of blocks by name ("blocks", ...: the ranges of each layer of a block, [N]) and
        "output", normalised; of the last stack "logits".
    """

    logits_BLV: jax.Array
    stats_N: RoutingStats | None
    encoder_N: Record | None = None
    decoder_N: Record | None = None
    encoder_ranges: dict[str, Any] = dataclasses.field(default_factory=dict)
    decoder_ranges: dict[str, Any] = dataclasses.field(default_factory=dict)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Segments:
    """Which of the examples packed into a row a token is of: int32 1, 2, ...; 0 is padding."""

    encoder_BM: jax.Array
    decoder_BL: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Encoded:
    """What generation needs of the inputs.

    Attributes:
      cross: keys and values, of each row of equal blocks for each decoder layer of its block,
        [N, ...].
      mask_BM: bool, real encoder tokens.
    """

    cross: list[list[Kept]]
    mask_BM: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Written:
    """What generation keeps of the tokens so far, of P hypotheses of each row.

    Attributes:
      own: their keys and values, of each row of equal blocks for each decoder layer of its block,
        [N, B, H, C P, K], where C is the room for tokens.
      writer_BPC: int32, which of the P places holds what a hypothesis has at a position. They
        share what they have in common: only this is moved when one continues another.
    """

    own: list[list[Kept]]
    writer_BPC: jax.Array

    @property
    def room(self) -> int:
        return self.writer_BPC.shape[-1]

    def continued(self, parent_BP: jax.Array) -> "Written":
        """Each hypothesis continues its parent."""
        moved_BPC = jnp.take_along_axis(self.writer_BPC, parent_BP[..., None], axis=1)
        return dataclasses.replace(self, writer_BPC=moved_BPC)

    def resized(self, room: int) -> "Written":
        """With room for more tokens, or for fewer that hold all there are."""
        P = self.writer_BPC.shape[1]
        own = jax.tree.map(lambda x_NBHCK: _resized(x_NBHCK, 3, room * P), self.own)
        return Written(own, _resized(self.writer_BPC, 2, room))


def _resized(x: jax.Array, axis: int, size: int) -> jax.Array:
    if size <= x.shape[axis]:
        return jax.lax.slice_in_dim(x, 0, size, axis=axis)
    return jnp.pad(x, [(0, size - n if a == axis else 0) for a, n in enumerate(x.shape)])


class Transformer(nnx.Module):
    """T5 with switch layers. Token 0 is padding in the encoder.

    With ModelConfig.num_decoder_layers=0 there is no decoder: `at_inputs` gives its logits.
    """

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.config = config
        self.embedding = Embedding(config, rngs)
        shared = not config.bias_per_layer
        self.encoder_bias = RelativePositionBias(config, True, rngs) if shared else None
        self.encoder: Stack[EncoderContext] = Stack(config, config.encoder, EncoderLayer, rngs)
        self.encoder_norm = RMSNorm(config, rngs)
        if config.encoder_alone:
            return
        self.decoder_bias = RelativePositionBias(config, False, rngs) if shared else None
        self.decoder: Stack[DecoderContext] = Stack(config, config.decoder, DecoderLayer, rngs)
        self.decoder_norm = RMSNorm(config, rngs)

    def __call__(
        self,
        encoder_token_BM: jax.Array,
        decoder_token_BL: jax.Array,
        decoder_mask_BL: jax.Array,
        noise: Noise,
        segments: Segments | None = None,
        groupings: Groupings | None = None,
    ) -> Output:
        """Logits of every next token.

        Args:
          encoder_token_BM, decoder_token_BL: int32; the decoder's begin with the start token.
          decoder_mask_BL: bool, positions whose target is real; the others are not routed.
          noise: keys per row while training; NO_NOISE for evaluation.
          segments: of rows that hold several examples, none of which sees another; None where
            each row is one.
          groupings: None: as the configuration says.
        """
        groupings = groupings or Groupings.of(self.config.switch, train=not noise.silent)
        enc, dec = noise.fold(0), noise.fold(1)
        encoder_segment_BM = None if segments is None else segments.encoder_BM
        encoded_BMD, encoder_N, encoder_ranges = self.encode(
            encoder_token_BM, groupings.encoder, enc, encoder_segment_BM
        )

        query_BL, encoder_key_BM = None, (encoder_token_BM > 0).astype(jnp.int32)
        if segments is not None:
            query_BL, encoder_key_BM = segments.decoder_BL, segments.encoder_BM
        key_BL, routed_BL = query_BL, decoder_mask_BL
        if groupings.decoder.filling is not None:
            # As flaxformer's: what has no target sees nothing, and so all alike, and it goes by the
            # decoder's input tokens which are routed as what they are.
            of_one_BL = jnp.ones_like(decoder_token_BL) if query_BL is None else query_BL
            query_BL = jnp.where(decoder_mask_BL, of_one_BL, -1)
            routed_BL = decoder_mask_BL | (decoder_token_BL > 0)
        L = decoder_token_BL.shape[1]
        context = DecoderContext(
            bias_HW=None if self.decoder_bias is None else self.decoder_bias(L, L),
            visibility=Visibility(query_BL, key_BL, causal=True),
            mask_BL=routed_BL,
            grouping=groupings.decoder,
            encoder_visibility=Visibility(query_BL, encoder_key_BM),
            encoded_BMD=encoded_BMD,
        )
        embedded_BLD = self._embed(decoder_token_BL, dec)
        with jax.named_scope("decoder"):
            x_BLD, decoder_N, blocks = self.decoder(embedded_BLD, context, dec)
            x_BLD = self._finish(self.decoder_norm(x_BLD), dec)
        logits_BLV = self.embedding.logits(x_BLD)
        output = _output(logits_BLV, encoder_N, decoder_N)
        if not groupings.decoder.watched:
            return output
        ranges = {**_ranges(embedded_BLD, blocks, x_BLD), "logits": Range.of(logits_BLV)}
        return dataclasses.replace(output, encoder_ranges=encoder_ranges, decoder_ranges=ranges)

    def at_inputs(
        self,
        token_BL: jax.Array,
        noise: Noise,
        segment_BL: jax.Array | None = None,
        groupings: Groupings | None = None,
    ) -> Output:
        """Logits of an encoder alone, of the token that belongs at each place of its inputs.

        Args:
          token_BL: int32, masks where tokens are to be found.
          noise, segment_BL, groupings: as of `__call__`.
        """
        grouping = (groupings or Groupings.of(self.config.switch, train=not noise.silent)).encoder
        x_BLD, routed_N, ranges = self.encode(token_BL, grouping, noise.fold(0), segment_BL)
        logits_BLV = self.embedding.logits(x_BLD)
        output = _output(logits_BLV, routed_N, None)
        if not grouping.watched:
            return output
        ranges = {**ranges, "logits": Range.of(logits_BLV)}
        return dataclasses.replace(output, encoder_ranges=ranges)

    @jax.named_scope("encoder")
    def encode(
        self,
        token_BM: jax.Array,
        grouping: Grouping,
        noise: Noise,
        segment_BM: jax.Array | None = None,
    ) -> tuple[jax.Array, Routed | None, dict[str, Any]]:
        """[B, M] tokens to [B, M, D]; what the switch layers did, [N, ...]; ranges, see Output."""
        M, real_BM = token_BM.shape[1], token_BM > 0
        key_BM = real_BM.astype(jnp.int32) if segment_BM is None else segment_BM
        bias_HW = None if self.encoder_bias is None else self.encoder_bias(M, M)
        context = EncoderContext(bias_HW, Visibility(segment_BM, key_BM), real_BM, grouping)
        embedded_BMD = self._embed(token_BM, noise)
        x_BMD, routed_N, blocks = self.encoder(embedded_BMD, context, noise)
        x_BMD = self._finish(self.encoder_norm(x_BMD), noise)
        if grouping.filling is not None:
            x_BMD = x_BMD * real_BM[..., None].astype(x_BMD.dtype)
        ranges = _ranges(embedded_BMD, blocks, x_BMD) if grouping.watched else {}
        return x_BMD, routed_N, ranges

    def read(self, encoder_token_BM: jax.Array) -> Encoded:
        """Encodes inputs for `decode_step`, routed as answers are.

        Raises:
          UserError: there is no decoder.
        """
        if self.config.encoder_alone:
            raise UserError(
                "ModelConfig.num_decoder_layers=0 is an encoder alone, which writes no answers: "
                "fill single blanks with it (`switchx infer`), or use a model with a decoder."
            )
        groupings = self._for_answers(encoder_token_BM)
        encoded_BMD, *_ = self.encode(encoder_token_BM, groupings.encoder, NO_NOISE)
        return Encoded(self.decoder.cross_kept(encoded_BMD), encoder_token_BM > 0)

    def nothing_written(self, encoded: Encoded, room: int, hypotheses: int = 1) -> Written:
        """To begin with, with room for so many tokens."""

        def empty(x_NBHMK: jax.Array) -> jax.Array:
            N, B, H, _, K = x_NBHMK.shape
            return jnp.zeros((N, B, H, room * hypotheses, K), x_NBHMK.dtype)

        B = encoded.mask_BM.shape[0]
        own = jax.tree.map(empty, encoded.cross)
        return Written(own, jnp.zeros((B, hypotheses, room), jnp.int32))

    def decode_step(
        self, token_BP: jax.Array, position_B: jax.Array, encoded: Encoded, written: Written
    ) -> tuple[jax.Array, Written]:
        """Float32 logits [B, P, V] of what follows the tokens, and what is written with these.

        Args:
          token_BP: int32, the last token of each hypothesis.
          position_B: int32, where it stands; below written.room.
        """
        (B, P), place_C = token_BP.shape, jnp.arange(written.room)
        writer_BPC = jnp.where(
            place_C == position_B[:, None, None], jnp.arange(P)[:, None], written.writer_BPC
        )
        visible_B1C = (place_C <= position_B[:, None])[:, None]
        visible_BPCP = visible_B1C[..., None] & (writer_BPC[..., None] == jnp.arange(P))
        bias_BH1M = None
        if self.decoder_bias is not None:
            bias_BH1M = self.decoder_bias.of_kept(position_B, written.room, P)
        context = StepContext(
            position_B=position_B,
            bias_BH1M=bias_BH1M,
            visible_BPM=visible_BPCP.reshape(B, P, -1),
            encoder_visible_B1M=encoded.mask_BM[:, None],
            grouping=self._for_answers(encoded.mask_BM).decoder,
        )
        x_BPD = self._embed(token_BP, NO_NOISE)
        x_BPD, own = self.decoder.step(x_BPD, context, written.own, encoded.cross)
        logits_BPV = self.embedding.logits(self.decoder_norm(x_BPD))
        return logits_BPV, Written(own, writer_BPC)

    def _for_answers(self, encoder_BM: jax.Array) -> Groupings:
        return Groupings.for_answers(self.config.switch, encoder_BM.shape[1], target_length=1)

    @jax.named_scope("embedding")
    def _embed(self, token_BL: jax.Array, noise: Noise) -> jax.Array:
        x_BLD = constrain(self.embedding.embed(token_BL), "batch", None, "embed")
        return dropout(x_BLD, self.config.dropout_rate, noise.fold(1000), shared_axis=1)

    def _finish(self, x_BLD: jax.Array, noise: Noise) -> jax.Array:
        return dropout(x_BLD, self.config.dropout_rate, noise.fold(1001), shared_axis=1)


def _ranges(embedded_BLD: jax.Array, blocks: dict[str, Any], x_BLD: jax.Array) -> dict[str, Any]:
    return {"embedding": Range.of(embedded_BLD), **blocks, "output": Range.of(x_BLD)}


def _output(logits_BLV: jax.Array, encoder_N: Routed | None, decoder_N: Routed | None) -> Output:
    stacks = encoder_N, decoder_N
    encoder, decoder = (None if routed_N is None else routed_N.record for routed_N in stacks)
    stats = [routed_N.stats for routed_N in stacks if routed_N is not None]
    stats_N = jax.tree.map(lambda *rows: jnp.concatenate(rows), *stats) if stats else None
    return Output(logits_BLV, stats_N, encoder, decoder)
