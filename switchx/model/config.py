"""What a model is: the dataclasses that gin fills and every layer reads."""

import dataclasses
from collections.abc import Iterator

from switchx.errors import UserError

ACTIVATIONS = ("relu", "geglu")
DTYPES = ("float32", "bfloat16")
REMAT_POLICIES = ("none", "dots", "full")
DISPATCHERS = ("einsum", "index", "ragged")
EXPLORATIONS = ("argmax", "sample", "input_dropout", "jitter")
SECOND_POLICIES = ("always", "never", "threshold", "random")
PRIORITIES = ("sequence", "gate")
EXPERTS_IN = ("feed_forward", "attention", "both")
ENCODER_ROUTINGS = ("tokens_choose", "experts_choose")


@dataclasses.dataclass(frozen=True)
class SwitchConfig:
    """The mixture-of-experts feed-forward layers (Switch Transformers, JMLR 2022, section 2).

    Attributes:
      num_experts: experts per switch layer (macro NUM_EXPERTS).
      every: every n-th layer of each stack has experts, counted as the released models do: 2
        gives layers 1, 3, 5, ...; 4 gives 3, 7, 11, ... (ST-MoE); 1 gives all of them.
      top_k: experts per token. 1 is the Switch layer, its gate not renormalised (eq. 2); with
        more, a token's gates are divided by their sum, as in the paper's MoE baseline.
      train_capacity_factor: slots per expert and group while training, as a multiple of an
        equal share of the group's tokens (eq. 3).
      eval_capacity_factor: the same for evaluation.
      min_capacity: least number of slots per expert and group.
      encoder_group_size: tokens per group in the encoder. Capacity and drops are decided
        within a group, so this is part of the model, whatever the mesh.
      decoder_group_size: the same in the decoder.
      exploration: what disturbs the choice while training (appendix C): "jitter" multiplies
        the router's input by U(1 - jitter, 1 + jitter); "input_dropout" drops elements of it
        at router_dropout_rate; "sample" draws experts from the router's distribution;
        "argmax" is none.
      jitter: see exploration.
      router_dropout_rate: see exploration.
      second_policy: with top_k above 1, which choices after the first are used: "always",
        "never", "threshold" (gate above second_threshold), or "random" (with probability
        gate / second_threshold; in evaluation as "threshold").
      second_threshold: see second_policy; the original code's 0.2.
      priority: who takes an expert's slots first in the encoder: "sequence", or "gate", the
        tokens with the likeliest first choice (batch-prioritised routing). The decoder always
        goes by sequence, since a later token must not take an earlier one's room.
      reroute_rounds: No-Token-Left-Behind (appendix B): how many times the tokens that found
        their expert full try their next choice. In the encoder only: the room that is left
        depends on later tokens.
      encoder_routing: "tokens_choose", or "experts_choose" (Zhou et al. 2022): each expert takes
        the tokens likeliest for it. The decoder's tokens always choose.
      balance_loss_weight: alpha of eq. 4; the losses of all layers are summed.
      router_z_loss_weight: weight of ST-MoE's router z-loss, summed over layers.
      expert_dropout_rate: dropout inside experts; None means the model's rate.
      dispatcher: how tokens reach their experts: "index" or "einsum", which fill each expert's
        capacity and agree ("index" does no more FLOPs than the slots need; "einsum", one-hot
        products, suits TPUs with groups of a few hundred tokens); or "ragged", which has no
        capacity and drops nothing.
    """

    num_experts: int
    every: int = 2
    top_k: int = 1
    train_capacity_factor: float = 1.25
    eval_capacity_factor: float = 2.0
    min_capacity: int = 4
    encoder_group_size: int = 4096
    decoder_group_size: int = 912
    exploration: str = "jitter"
    jitter: float = 1e-2
    router_dropout_rate: float = 0.1
    second_policy: str = "always"
    second_threshold: float = 0.2
    priority: str = "sequence"
    reroute_rounds: int = 0
    encoder_routing: str = "tokens_choose"
    balance_loss_weight: float = 1e-2
    router_z_loss_weight: float = 0.0
    expert_dropout_rate: float | None = None
    dispatcher: str = "index"
    extra_dense: bool = False
    experts_in: str = "feed_forward"
    attention_dtype: str = "float32"

    def __post_init__(self) -> None:
        _at_least("NUM_EXPERTS", self.num_experts, 1)
        _at_least("SwitchConfig.every", self.every, 1)
        _at_least("SwitchConfig.top_k", self.top_k, 1)
        _at_least("SwitchConfig.min_capacity", self.min_capacity, 1)
        _at_least("ENCODER_GROUP_SIZE", self.encoder_group_size, 1)
        _at_least("DECODER_GROUP_SIZE", self.decoder_group_size, 1)
        _at_least("SwitchConfig.reroute_rounds", self.reroute_rounds, 0)
        _one_of("SwitchConfig.dispatcher", self.dispatcher, DISPATCHERS)
        _one_of("SwitchConfig.experts_in", self.experts_in, EXPERTS_IN)
        _one_of("SwitchConfig.attention_dtype", self.attention_dtype, DTYPES)
        if not isinstance(self.extra_dense, bool):
            raise UserError(f"SwitchConfig.extra_dense={self.extra_dense!r} must be True or False.")
        _one_of("SwitchConfig.exploration", self.exploration, EXPLORATIONS)
        _one_of("SwitchConfig.second_policy", self.second_policy, SECOND_POLICIES)
        _one_of("SwitchConfig.priority", self.priority, PRIORITIES)
        _one_of("SwitchConfig.encoder_routing", self.encoder_routing, ENCODER_ROUTINGS)
        for name in ("train_capacity_factor", "eval_capacity_factor", "second_threshold"):
            if getattr(self, name) <= 0:
                raise UserError(f"SwitchConfig.{name}={getattr(self, name)} must be above 0.")
        _rate("SwitchConfig.jitter", self.jitter)
        _rate("SwitchConfig.router_dropout_rate", self.router_dropout_rate)
        if self.expert_dropout_rate is not None:
            _rate("EXPERT_DROPOUT_RATE", self.expert_dropout_rate)
        if self.top_k > self.num_experts:
            raise UserError(
                f"SwitchConfig.top_k={self.top_k} needs at least as many experts, "
                f"but NUM_EXPERTS={self.num_experts}."
            )
        if self.reroute_rounds >= self.num_experts:
            raise UserError(
                f"SwitchConfig.reroute_rounds={self.reroute_rounds} must be below "
                f"NUM_EXPERTS={self.num_experts}: a token has no more experts to try."
            )
        for given, other, reason in self._conflicts():
            raise UserError(f"SwitchConfig.{given} does not go with {other}: {reason}.")

    def _conflicts(self) -> Iterator[tuple[str, str, str]]:
        """Pairs of settings that make no sense together, and why."""
        dropless = self.dispatcher == "ragged"
        experts_choose = self.encoder_routing == "experts_choose"
        if self.second_policy != "always" and self.top_k == 1:
            yield f"second_policy={self.second_policy!r}", "top_k=1", "there is no second choice"
        if self.reroute_rounds and self.top_k > 1:
            yield (
                f"reroute_rounds={self.reroute_rounds}",
                f"top_k={self.top_k}",
                "tokens of several choices are not rerouted",
            )
        plain = dict(reroute_rounds=0, priority="sequence")
        for name, value in (plain | dict(encoder_routing="tokens_choose")).items():
            if dropless and getattr(self, name) != value:
                given = f"{name}={getattr(self, name)!r}"
                yield given, "dispatcher='ragged'", "without capacity none is full"
        for name, value in (plain | dict(top_k=1)).items():
            if experts_choose and getattr(self, name) != value:
                given = f"{name}={getattr(self, name)!r}"
                reason = "its encoder tokens make no choice"
                yield given, "encoder_routing='experts_choose'", reason
        if self.extra_dense and not self.in_feed_forward:
            yield "extra_dense=True", "experts_in='attention'", "no feed-forward has experts"
        if self.attention_dtype != "float32" and not self.in_attention:
            yield (
                f"attention_dtype={self.attention_dtype!r}",
                "experts_in='feed_forward'",
                "no attention has experts",
            )

    @property
    def in_feed_forward(self) -> bool:
        """Whether feed-forwards have experts."""
        return self.experts_in != "attention"

    @property
    def in_attention(self) -> bool:
        """Whether self-attention has experts."""
        return self.experts_in != "feed_forward"


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A T5 encoder-decoder, dense or switch.

    Attributes:
      vocab_size: rows of the embedding, the vocabulary's size rounded up (T5: 32,128).
      d_model, d_ff, d_kv, num_heads: widths; attention's inner width is num_heads * d_kv.
      num_layers: layers per stack, encoder and decoder alike.
      activation: "relu" (T5 1.0, the released Switch models) or "geglu" (T5 1.1).
      tied_embeddings: logits from the embedding, scaled by d_model^-0.5.
      dropout_rate: everywhere but in experts that set their own (macro DROPOUT_RATE).
      init_scale: s of the feed-forward, expert and router initializers, a normal truncated
        at two standard deviations of sqrt(s / fan_in). The paper lowers it to 0.1.
      dtype: of computation; parameters, router and loss are float32 (macro DTYPE).
      relative_buckets, relative_max_distance: T5's relative position bias.
      remat: what the backward pass computes again instead of keeping it: "none", "dots"
        (all but products with parameters), "full" (each block from its input).
      scan: run identical blocks as one compiled loop, so compile time does not grow with depth.
      switch: the switch layers; None is a dense model.
    """

    vocab_size: int
    d_model: int
    d_ff: int
    d_kv: int
    num_heads: int
    num_layers: int
    activation: str = "relu"
    tied_embeddings: bool = True
    dropout_rate: float = 0.0
    init_scale: float = 1.0
    dtype: str = "bfloat16"
    relative_buckets: int = 32
    relative_max_distance: int = 128
    remat: str = "none"
    scan: bool = True
    switch: SwitchConfig | None = None

    def __post_init__(self) -> None:
        for name in ("vocab_size", "d_model", "d_ff", "d_kv", "num_heads", "num_layers"):
            _at_least(f"ModelConfig.{name}", getattr(self, name), 1)
        _one_of("ModelConfig.activation", self.activation, ACTIVATIONS)
        _one_of("DTYPE", self.dtype, DTYPES)
        _one_of("REMAT", self.remat, REMAT_POLICIES)
        _rate("DROPOUT_RATE", self.dropout_rate)
        if self.switch and self.switch.attention_dtype == "bfloat16" and self.dtype == "float32":
            raise UserError(
                "SwitchConfig.attention_dtype='bfloat16' does not go with DTYPE='float32': "
                "experts in attention need at least the precision of the model."
            )
        if self.num_layers % self.period:
            raise UserError(
                f"ModelConfig.num_layers={self.num_layers} is not a multiple of "
                f"SwitchConfig.every={self.period}: blocks repeat every {self.period} layers."
            )

    @property
    def period(self) -> int:
        """Layers in one block, the unit that repeats: dense ones, then the switch layer."""
        return self.switch.every if self.switch else 1

    @property
    def num_blocks(self) -> int:
        return self.num_layers // self.period


def _at_least(name: str, value: int, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(f"{name}={value!r} must be a whole number of at least {least}.")


def _one_of(name: str, value: str, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        raise UserError(f"{name}={value!r} is not one of {', '.join(accepted)}.")


def _rate(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise UserError(f"{name}={value!r} must be at least 0 and below 1.")
