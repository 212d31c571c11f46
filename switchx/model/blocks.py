"""Encoder and decoder blocks: one period of the dense/switch pattern, pre-norm and residual."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from switchx.model.attention import Attention
from switchx.model.config import ModelConfig
from switchx.model.expert_attention import ExpertAttention
from switchx.model.experts import Experts
from switchx.model.layers import FeedForward, RMSNorm
from switchx.model.noise import Noise, dropout
from switchx.model.routing_stats import RoutingStats
from switchx.model.switch_layer import Grouping, SwitchLayer
from switchx.sharding import constrain


@dataclasses.dataclass(frozen=True)
class EncoderContext:
    """What every encoder block sees.

    Attributes:
      bias_HLL: the relative bias.
      visible_BLL: bool, which tokens a token may see; the first L may be 1.
      mask_BL: bool, real tokens, for routing.
    """

    bias_HLL: jax.Array
    visible_BLL: jax.Array
    mask_BL: jax.Array
    grouping: Grouping | None


@dataclasses.dataclass(frozen=True)
class DecoderContext:
    """What every decoder block sees.

    Attributes:
      bias_HLM: self-attention's relative bias.
      visible_BLM: bool, which positions self-attention may see; B may be 1.
      mask_BL: bool, real tokens, for routing.
      encoded_BMD: the encoder's output; None once its keys and values are in the cache.
      encoder_visible_BLM: bool, which encoder tokens may be seen; L may be 1.
      position: int32 scalar, where a cache is written; None without one.
    """

    bias_HLM: jax.Array
    visible_BLM: jax.Array
    mask_BL: jax.Array
    encoded_BMD: jax.Array | None
    encoder_visible_BLM: jax.Array
    grouping: Grouping | None
    position: jax.Array | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LayerCache:
    """Keys and values of one decoder layer: of the tokens so far [B, L, H, K], of the encoder's."""

    key_BLHK: jax.Array
    value_BLHK: jax.Array
    cross_key_BMHK: jax.Array
    cross_value_BMHK: jax.Array


class FeedForwardSublayer(nnx.Module):
    """x + dropout(f(norm(x))) where f is dense or a switch layer.

    With `extra_dense` the switch layer's step is followed by a dense one, as in ST-MoE and
    flaxformer's configuration of it. There the second step has a norm of its own; the count of
    ST-MoE-32B that this project holds to (269,104,551,936) has none, so here the two share theirs.
    """

    def __init__(self, config: ModelConfig, sparse: bool, rngs: nnx.Rngs):
        switch = config.switch
        self.config = config
        self.sparse = sparse and switch is not None and switch.in_feed_forward
        self.norm = RMSNorm(config, rngs)
        if self.sparse:
            self.switch = SwitchLayer(config, Experts(config, rngs), rngs)
        if not self.sparse or (switch is not None and switch.extra_dense):
            self.dense = FeedForward(config, rngs)

    def __call__(
        self, x_BLD: jax.Array, mask_BL: jax.Array, grouping: Grouping | None, noise: Noise | None
    ) -> tuple[jax.Array, list[RoutingStats]]:
        stats = []
        if self.sparse:
            assert grouping is not None
            h_BLD, routed = self.switch(self.norm(x_BLD), mask_BL, grouping, _fold(noise, 0))
            x_BLD = _residual(self.config, x_BLD, h_BLD, noise)
            stats, noise = [routed], _fold(noise, 2)
        if hasattr(self, "dense"):
            h_BLD = self.dense(self.norm(x_BLD), _fold(noise, 0))
            x_BLD = _residual(self.config, x_BLD, h_BLD, noise)
        return x_BLD, stats


def _fold(noise: Noise | None, site: int) -> Noise | None:
    return None if noise is None else noise.fold(site)


def _residual(
    config: ModelConfig, x_BLD: jax.Array, h_BLD: jax.Array, noise: Noise | None
) -> jax.Array:
    x_BLD = x_BLD + dropout(h_BLD, config.dropout_rate, _fold(noise, 1), shared_axis=1)
    return constrain(x_BLD, "batch", None, "embed")


def _self_attention(
    config: ModelConfig, sparse: bool, rngs: nnx.Rngs
) -> Attention | ExpertAttention:
    if sparse and config.switch is not None and config.switch.in_attention:
        return ExpertAttention(config, rngs)
    return Attention(config, rngs)


def _project(
    attention: Attention | ExpertAttention,
    x_BLD: jax.Array,
    mask_BL: jax.Array,
    grouping: Grouping | None,
    noise: Noise | None,
) -> tuple[jax.Array, jax.Array, jax.Array, list[RoutingStats]]:
    """Queries, keys and values of self-attention, [B, L, H, K], and what their routing did."""
    if isinstance(attention, Attention):
        return attention.queries(x_BLD), *attention.keys_values(x_BLD), []
    assert grouping is not None
    query, key, stats = attention.project(x_BLD, mask_BL, grouping, _fold(noise, 2))
    return query, key, key, [stats]


class EncoderLayer(nnx.Module):
    """Self-attention and feed-forward."""

    def __init__(self, config: ModelConfig, sparse: bool, rngs: nnx.Rngs):
        self.config = config
        self.attention_norm = RMSNorm(config, rngs)
        self.attention = _self_attention(config, sparse, rngs)
        self.feed_forward = FeedForwardSublayer(config, sparse, rngs)

    def __call__(
        self, x_BLD: jax.Array, context: EncoderContext, noise: Noise | None, cache: None
    ) -> tuple[jax.Array, list[RoutingStats], None]:
        at, ff = _fold(noise, 0), _fold(noise, 1)
        mask_BL, grouping = context.mask_BL, context.grouping
        h_BLD = self.attention_norm(x_BLD)
        query, key, value, stats = _project(self.attention, h_BLD, mask_BL, grouping, at)
        h_BLD = self.attention(query, key, value, context.bias_HLL, context.visible_BLL, at)
        x_BLD = _residual(self.config, x_BLD, h_BLD, at)
        x_BLD, more = self.feed_forward(x_BLD, mask_BL, grouping, ff)
        return x_BLD, stats + more, None


class DecoderLayer(nnx.Module):
    """Causal self-attention, attention to the encoder, feed-forward."""

    def __init__(self, config: ModelConfig, sparse: bool, rngs: nnx.Rngs):
        self.config = config
        self.attention_norm = RMSNorm(config, rngs)
        self.attention = _self_attention(config, sparse, rngs)
        self.cross_norm = RMSNorm(config, rngs)
        self.cross_attention = Attention(config, rngs)
        self.feed_forward = FeedForwardSublayer(config, sparse, rngs)

    def __call__(
        self,
        x_BLD: jax.Array,
        context: DecoderContext,
        noise: Noise | None,
        cache: LayerCache | None,
    ) -> tuple[jax.Array, list[RoutingStats], LayerCache | None]:
        at, cross, ff = (_fold(noise, site) for site in range(3))
        mask_BL, grouping = context.mask_BL, context.grouping
        h_BLD = self.attention_norm(x_BLD)
        query, key, value, stats = _project(self.attention, h_BLD, mask_BL, grouping, at)
        if cache is not None:
            cache = _append(cache, key, value, context.position)
            key, value = cache.key_BLHK, cache.value_BLHK
        h_BLD = self.attention(query, key, value, context.bias_HLM, context.visible_BLM, at)
        x_BLD = _residual(self.config, x_BLD, h_BLD, at)

        h_BLD = self.cross_norm(x_BLD)
        query = self.cross_attention.queries(h_BLD)
        if cache is not None:
            key, value = cache.cross_key_BMHK, cache.cross_value_BMHK
        else:
            assert context.encoded_BMD is not None
            key, value = self.cross_attention.keys_values(context.encoded_BMD)
        visible_BLM = context.encoder_visible_BLM
        h_BLD = self.cross_attention(query, key, value, None, visible_BLM, cross)
        x_BLD = _residual(self.config, x_BLD, h_BLD, cross)

        x_BLD, more = self.feed_forward(x_BLD, mask_BL, grouping, ff)
        return x_BLD, stats + more, cache

    def start_cache(self, encoded_BMD: jax.Array, length: int) -> LayerCache:
        """An empty cache for `length` tokens, the encoder's keys and values filled in."""
        cross_key, cross_value = self.cross_attention.keys_values(encoded_BMD)
        B, _, H, K = cross_key.shape
        empty_BLHK = jnp.zeros((B, length, H, K), cross_key.dtype)
        return LayerCache(empty_BLHK, empty_BLHK, cross_key, cross_value)


def _append(
    cache: LayerCache, key_B1HK: jax.Array, value_B1HK: jax.Array, position: jax.Array | None
) -> LayerCache:
    assert position is not None
    start = (0, position, 0, 0)
    return dataclasses.replace(
        cache,
        key_BLHK=jax.lax.dynamic_update_slice(cache.key_BLHK, key_B1HK, start),
        value_BLHK=jax.lax.dynamic_update_slice(cache.value_BLHK, value_B1HK, start),
    )


class Block(nnx.Module):
    """`config.period` layers, of which the last is sparse if the model is a switch model."""

    def __init__(self, config: ModelConfig, layer: type[nnx.Module], rngs: nnx.Rngs):
        self.config = config
        for i in range(config.period):
            sparse = config.switch is not None and i == config.period - 1
            setattr(self, f"layer_{i}", layer(config, sparse, rngs))

    @property
    def layers(self) -> list[Any]:
        return [getattr(self, f"layer_{i}") for i in range(self.config.period)]

    def __call__(
        self, x_BLD: jax.Array, context: Any, noise: Noise | None, cache: list[LayerCache] | None
    ) -> tuple[jax.Array, RoutingStats | None, list[LayerCache] | None]:
        """Runs the layers; the statistics have a leading axis: attention's, feed-forward's."""
        stats, caches = [], []
        for i, layer in enumerate(self.layers):
            layer_cache = None if cache is None else cache[i]
            x_BLD, more, layer_cache = layer(x_BLD, context, _fold(noise, i), layer_cache)
            stats += more
            caches.append(layer_cache)
        stacked = jax.tree.map(lambda *rows: jnp.stack(rows), *stats) if stats else None
        return x_BLD, stacked, None if cache is None else caches
