"""What a model is: the dataclasses that gin fills and every layer reads."""

import dataclasses

from switchx.errors import UserError

ACTIVATIONS = ("relu", "geglu")
DTYPES = ("float32", "bfloat16")
REMAT_POLICIES = ("none", "dots", "full")
DISPATCHERS = ("auto", "einsum", "index")


@dataclasses.dataclass(frozen=True)
class SwitchConfig:
    """The mixture-of-experts feed-forward layers (Switch Transformers, JMLR 2022, section 2).

    Attributes:
      num_experts: experts per switch layer (macro NUM_EXPERTS).
      every: every n-th feed-forward of each stack is a switch layer, counted as the released
        models do: 2 gives layers 1, 3, 5, ...; 1 gives all of them.
      top_k: experts per token. 1 is the Switch layer, its gate not renormalised (eq. 2); with
        more, a token's gates are divided by their sum, as in the paper's MoE baseline.
      train_capacity_factor: slots per expert and group while training, as a multiple of an
        equal share of the group's tokens (eq. 3).
      eval_capacity_factor: the same for evaluation.
      min_capacity: least number of slots per expert and group.
      encoder_group_size: tokens per group in the encoder. Capacity and drops are decided
        within a group, so this is part of the model, whatever the mesh.
      decoder_group_size: the same in the decoder.
      jitter: while training, the router's input is multiplied by U(1 - jitter, 1 + jitter).
      balance_loss_weight: alpha of eq. 4; the losses of all layers are summed.
      router_z_loss_weight: weight of ST-MoE's router z-loss, summed over layers.
      expert_dropout_rate: dropout inside experts; None means the model's rate.
      dispatcher: "einsum", "index", or "auto", which takes the faster one on the platform.
    """

    num_experts: int
    every: int = 2
    top_k: int = 1
    train_capacity_factor: float = 1.25
    eval_capacity_factor: float = 2.0
    min_capacity: int = 4
    encoder_group_size: int = 4096
    decoder_group_size: int = 912
    jitter: float = 1e-2
    balance_loss_weight: float = 1e-2
    router_z_loss_weight: float = 0.0
    expert_dropout_rate: float | None = None
    dispatcher: str = "auto"

    def __post_init__(self) -> None:
        _at_least("NUM_EXPERTS", self.num_experts, 1)
        _at_least("SwitchConfig.every", self.every, 1)
        _at_least("SwitchConfig.top_k", self.top_k, 1)
        _at_least("SwitchConfig.min_capacity", self.min_capacity, 1)
        _at_least("ENCODER_GROUP_SIZE", self.encoder_group_size, 1)
        _at_least("DECODER_GROUP_SIZE", self.decoder_group_size, 1)
        _one_of("SwitchConfig.dispatcher", self.dispatcher, DISPATCHERS)
        for name in ("train_capacity_factor", "eval_capacity_factor"):
            if getattr(self, name) <= 0:
                raise UserError(f"SwitchConfig.{name}={getattr(self, name)} must be above 0.")
        _rate("SwitchConfig.jitter", self.jitter)
        if self.expert_dropout_rate is not None:
            _rate("EXPERT_DROPOUT_RATE", self.expert_dropout_rate)
        if self.top_k > self.num_experts:
            raise UserError(
                f"SwitchConfig.top_k={self.top_k} needs at least as many experts, "
                f"but NUM_EXPERTS={self.num_experts}."
            )


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
