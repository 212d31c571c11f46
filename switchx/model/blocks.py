"""Encoder and decoder blocks: one period of the dense/switch pattern, pre-norm and residual."""

import dataclasses
from typing import ClassVar, Generic, Protocol, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from switchx.model.attention import Attention, Kept, RelativePositionBias, Visibility
from switchx.model.config import ModelConfig
from switchx.model.expert_attention import ExpertAttention
from switchx.model.experts import experts_of
from switchx.model.layers import FeedForward, RMSNorm
from switchx.model.noise import NO_NOISE, Noise, dropout
from switchx.model.ranges import Range, Ranges
from switchx.model.switch_config import SwitchConfig
from switchx.model.switch_layer import Grouping, Routed, SwitchLayer
from switchx.sharding import constrain


@dataclasses.dataclass(frozen=True)
class EncoderContext:
    """What every encoder block sees.

    Attributes:
      bias_HW: self-attention's relative bias; None where each layer has its own.
      visibility: which positions self-attention may see.
      mask_BL: bool, real tokens, for routing.
      grouping: how switch layers route them.
    """

    bias_HW: jax.Array | None
    visibility: Visibility
    mask_BL: jax.Array
    grouping: Grouping


@dataclasses.dataclass(frozen=True)
class DecoderContext(EncoderContext):
    """What every decoder block sees besides.

    Attributes:
      encoder_visibility: which encoder tokens may be seen.
      encoded_BMD: the encoder's output.
    """

    encoder_visibility: Visibility
    encoded_BMD: jax.Array


@dataclasses.dataclass(frozen=True)
class StepContext:
    """What every decoder block sees of one step of generation.

    Attributes:
      position_B: int32, where each row's tokens stand.
      bias_BH1M: self-attention's relative bias of the kept tokens; None where each layer has its
        own.
      visible_BPM: bool, which of them each hypothesis may see.
      encoder_visible_B1M: bool, which encoder tokens may be seen.
      grouping: how switch layers route.
    """

    position_B: jax.Array
    bias_BH1M: jax.Array | None
    visible_BPM: jax.Array
    encoder_visible_B1M: jax.Array
    grouping: Grouping


class FeedForwardSublayer(nnx.Module):
    """x + dropout(f(norm(x))) where f is dense or a switch layer.

    With `extra_dense` the switch layer's step is followed by a dense one, as in ST-MoE and
    flaxformer's configuration of it. There the second step has a norm of its own; the count of
    ST-MoE-32B that this project holds to (269,104,551,936) has none, so here the two share theirs.
    """

    def __init__(self, config: ModelConfig, switch: SwitchConfig | None, rngs: nnx.Rngs):
        """`switch`: None in a layer without experts."""
        self.config = config
        self.norm = RMSNorm(config, rngs)
        self.switch = (
            SwitchLayer(config, switch, experts_of(config, rngs), rngs)
            if switch is not None and switch.in_feed_forward
            else None
        )
        dense = self.switch is None or (switch is not None and switch.extra_dense)
        self.dense = FeedForward(config, rngs) if dense else None

    def __call__(
        self, x_BLD: jax.Array, mask_BL: jax.Array, grouping: Grouping, noise: Noise
    ) -> tuple[jax.Array, list[Routed], Ranges]:
        done, ranges = [], {}
        if self.switch is not None:
            h_BLD, routed = self.switch(self.norm(x_BLD), mask_BL, grouping, noise.fold(0))
            x_BLD = _residual(self.config, x_BLD, h_BLD, noise)
            done, noise, ranges = [routed], noise.fold(2), dict(routed.ranges)
        if self.dense is not None:
            with jax.named_scope("feed_forward"):
                h_BLD = self.dense(self.norm(x_BLD), noise.fold(0))
                x_BLD = _residual(self.config, x_BLD, h_BLD, noise)
            ranges |= _watched(grouping, feed_forward=h_BLD)
        return x_BLD, done, ranges | _watched(grouping, output=x_BLD)


def _watched(grouping: Grouping, **computed: jax.Array) -> Ranges:
    """The ranges of these arrays, by name, where the grouping is watched; else none."""
    return {name: Range.of(x) for name, x in computed.items()} if grouping.watched else {}


def _residual(config: ModelConfig, x_BLD: jax.Array, h_BLD: jax.Array, noise: Noise) -> jax.Array:
    x_BLD = x_BLD + dropout(h_BLD, config.dropout_rate, noise.fold(1), shared_axis=1)
    return constrain(x_BLD, "batch", None, "embed")


class _Layer(nnx.Module):
    """What the layers of both stacks begin with: self-attention."""

    bidirectional: ClassVar[bool]

    def __init__(self, config: ModelConfig, switch: SwitchConfig | None, rngs: nnx.Rngs):
        """`switch`: None in a layer without experts."""
        self.config = config
        self.attention_norm = RMSNorm(config, rngs)
        self.attention: Attention | ExpertAttention
        if switch is not None and switch.in_attention:
            self.attention = ExpertAttention(config, switch, rngs)
        else:
            self.attention = Attention(config, rngs)
        self.attention_bias = (
            RelativePositionBias(config, self.bidirectional, rngs)
            if config.bias_per_layer
            else None
        )

    def attend(
        self, x_BLD: jax.Array, h_BLD: jax.Array, context: EncoderContext, noise: Noise
    ) -> tuple[jax.Array, list[Routed], Ranges]:
        """x + dropout(f(h)) where f is self-attention, and h the normalised x."""
        L, grouping, bias_HW = x_BLD.shape[1], context.grouping, context.bias_HW
        if self.attention_bias is not None:
            bias_HW = self.attention_bias(L, L)
        query, key, value, routed = self.attention.of_itself(
            h_BLD, context.mask_BL, grouping, noise
        )
        h_BLD = self.attention(query, key, value, bias_HW, context.visibility, noise)
        ranges = {f"attention_{name}": each for r in routed for name, each in r.ranges.items()}
        ranges |= _watched(grouping, attention=h_BLD)
        return _residual(self.config, x_BLD, h_BLD, noise), routed, ranges


class EncoderLayer(_Layer):
    """Self-attention and feed-forward."""

    bidirectional = True

    def __init__(self, config: ModelConfig, switch: SwitchConfig | None, rngs: nnx.Rngs):
        super().__init__(config, switch, rngs)
        self.feed_forward = FeedForwardSublayer(config, switch, rngs)

    def __call__(
        self, x_BLD: jax.Array, context: EncoderContext, noise: Noise
    ) -> tuple[jax.Array, list[Routed], Ranges]:
        at, ff = noise.fold(0), noise.fold(1)
        with jax.named_scope("attention"):
            h_BLD = self.attention_norm(x_BLD)
            x_BLD, routed, ranges = self.attend(x_BLD, h_BLD, context, at)
        x_BLD, more, further = self.feed_forward(x_BLD, context.mask_BL, context.grouping, ff)
        return x_BLD, routed + more, ranges | further


class DecoderLayer(_Layer):
    """Causal self-attention, attention to the encoder, feed-forward."""

    bidirectional = False

    def __init__(self, config: ModelConfig, switch: SwitchConfig | None, rngs: nnx.Rngs):
        super().__init__(config, switch, rngs)
        self.cross_norm = RMSNorm(config, rngs)
        self.cross_attention = Attention(config, rngs)
        self.feed_forward = FeedForwardSublayer(config, switch, rngs)

    def __call__(
        self, x_BLD: jax.Array, context: DecoderContext, noise: Noise
    ) -> tuple[jax.Array, list[Routed], Ranges]:
        at, cross, ff = (noise.fold(site) for site in range(3))
        mask_BL, grouping = context.mask_BL, context.grouping
        with jax.named_scope("attention"):
            h_BLD = self.attention_norm(x_BLD)
            if grouping.filling is not None:  # what sees nothing sees padding's zeros too
                h_BLD = h_BLD * mask_BL[..., None].astype(h_BLD.dtype)
            x_BLD, routed, ranges = self.attend(x_BLD, h_BLD, context, at)
        with jax.named_scope("cross_attention"):
            h_BLD = self.cross_norm(x_BLD)
            query = self.cross_attention.queries(h_BLD)
            key, value = self.cross_attention.keys_values(context.encoded_BMD)
            visibility = context.encoder_visibility
            h_BLD = self.cross_attention(query, key, value, None, visibility, cross)
            x_BLD = _residual(self.config, x_BLD, h_BLD, cross)
        ranges |= _watched(grouping, cross_attention=h_BLD)
        x_BLD, more, further = self.feed_forward(x_BLD, mask_BL, grouping, ff)
        return x_BLD, routed + more, ranges | further

    def step(
        self, x_BPD: jax.Array, context: StepContext, own_N: Kept, number: jax.Array, cross: Kept
    ) -> tuple[jax.Array, Kept]:
        """One more token of each of P hypotheses of each row.

        Args:
          own_N: keys and values of the tokens so far, of this layer in every block, [N, ...].
          number: the block's.
          cross: keys and values of the encoder's.

        Returns:
          [B, P, D]; own_N with this token's.
        """
        mask_BP = jnp.ones(x_BPD.shape[:2], bool)
        h_BPD = self.attention_norm(x_BPD)
        query, key, value, _ = self.attention.of_itself(h_BPD, mask_BP, context.grouping, NO_NOISE)
        own_N = own_N.extended(number, context.position_B, key, value)
        own, bias_BH1M = own_N.of_block(number), context.bias_BH1M
        if self.attention_bias is not None:
            P = x_BPD.shape[1]
            room = own.key_BHMK.shape[2] // P
            bias_BH1M = self.attention_bias.of_kept(context.position_B, room, P)
        h_BPD = self.attention.to_kept(query, own, bias_BH1M, context.visible_BPM)
        x_BPD = _residual(self.config, x_BPD, h_BPD, NO_NOISE)
        query = self.cross_attention.queries(self.cross_norm(x_BPD))
        h_BPD = self.cross_attention.to_kept(query, cross, None, context.encoder_visible_B1M)
        x_BPD = _residual(self.config, x_BPD, h_BPD, NO_NOISE)
        x_BPD, *_ = self.feed_forward(x_BPD, mask_BP, context.grouping, NO_NOISE)
        return x_BPD, own_N


C = TypeVar("C", bound=EncoderContext)
C_contra = TypeVar("C_contra", bound=EncoderContext, contravariant=True)


class Layer(Protocol[C_contra]):
    """An EncoderLayer or a DecoderLayer, called with the context of its stack."""

    def __call__(
        self, x_BLD: jax.Array, context: C_contra, noise: Noise
    ) -> tuple[jax.Array, list[Routed], Ranges]: ...


class Block(nnx.Module, Generic[C]):
    """A few layers, dense ones and ones with experts: what a stack repeats."""

    def __init__(
        self,
        config: ModelConfig,
        layer: type[EncoderLayer] | type[DecoderLayer],
        sparse: tuple[bool, ...],
        rngs: nnx.Rngs,
    ):
        """`sparse`: of each layer, whether it has experts."""
        self.period = len(sparse)
        for i, has_experts in enumerate(sparse):
            switch = config.switch if has_experts else None
            setattr(self, f"layer_{i}", layer(config, switch, rngs))

    @property
    def layers(self) -> list[Layer[C]]:
        return [getattr(self, f"layer_{i}") for i in range(self.period)]

    def __call__(
        self, x_BLD: jax.Array, context: C, noise: Noise
    ) -> tuple[jax.Array, Routed | None, dict[str, Ranges]]:
        """Runs the layers; what was routed has a leading axis: attention's, feed-forward's.

        Last come the layers' ranges by "layer_0", ..., {} where the grouping is not watched.
        """
        routed, ranges = [], {}
        for i, layer in enumerate(self.layers):
            x_BLD, more, seen = layer(x_BLD, context, noise.fold(i))
            routed += more
            if seen:
                ranges[f"layer_{i}"] = seen
        stacked = jax.tree.map(lambda *rows: jnp.stack(rows), *routed) if routed else None
        return x_BLD, stacked, ranges
