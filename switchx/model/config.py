"""What a model is: the dataclasses that gin fills and every layer reads."""

import dataclasses

from switchx.checks import above_zero, at_least, below_one, one_of
from switchx.errors import UserError
from switchx.model.activations import ACTIVATIONS, is_gated
from switchx.model.shape import StackShape
from switchx.model.switch_config import DTYPES, SwitchConfig

REMAT_POLICIES = ("none", "dots", "full")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A T5 encoder-decoder, or its encoder alone, dense or switch.

    Attributes:
      vocab_size: rows of the embedding, the vocabulary's size rounded up (T5: 32,128).
      d_model, d_ff, d_kv, num_heads: widths; attention's inner width is num_heads * d_kv.
      num_layers: layers of the encoder.
      num_decoder_layers: layers of the decoder; None: as many; 0: an encoder alone, with logits at
        each of its tokens.
      activation: "relu" (T5 1.0, the released Switch models), "geglu" (T5 1.1, mT5), or another
        of activations.py.
      tied_embeddings: whether the logits' matrix is the embedding.
      scale_logits: whether logits are scaled by d_model^-0.5; None: where embeddings are tied.
      dropout_rate: everywhere but in experts that set their own (macro DROPOUT_RATE).
      init_scale: s of the feed-forward, expert and router initializers, a normal truncated
        at two standard deviations of sqrt(s / fan_in). The paper lowers it to 0.1.
      dtype: of computation; parameters, router and loss are float32 (macro DTYPE).
      relative_buckets, relative_max_distance: T5's relative position bias.
      bias_per_layer: whether each layer has a relative position bias of its own (UMT5), not each
        stack one.
      remat: what the backward pass computes again instead of keeping it: "none", "dots" (all but
        products with parameters, and what was exchanged), "full" (each block from its input).
      scan: train identical blocks as one compiled loop, so compile time does not grow with depth.
        Without it a step is faster: no stacks of what the backward pass needs are made. What has
        no backward pass, evaluation and answers, is always a loop.
      switch: the switch layers; None is a dense model.
    """

    vocab_size: int
    d_model: int
    d_ff: int
    d_kv: int
    num_heads: int
    num_layers: int
    num_decoder_layers: int | None = None
    activation: str = "relu"
    tied_embeddings: bool = True
    scale_logits: bool | None = None
    dropout_rate: float = 0.0
    init_scale: float = 1.0
    dtype: str = "bfloat16"
    relative_buckets: int = 32
    relative_max_distance: int = 128
    bias_per_layer: bool = False
    remat: str = "none"
    scan: bool = True
    switch: SwitchConfig | None = None

    def __post_init__(self) -> None:
        for name in ("vocab_size", "d_model", "d_ff", "d_kv", "num_heads", "num_layers"):
            at_least(f"ModelConfig.{name}", getattr(self, name), 1)
        one_of("ModelConfig.activation", self.activation, ACTIVATIONS)
        one_of("ModelConfig.scale_logits", self.scale_logits, (None, False, True))
        one_of("ModelConfig.bias_per_layer", self.bias_per_layer, (False, True))
        one_of("DTYPE", self.dtype, DTYPES)
        one_of("REMAT", self.remat, REMAT_POLICIES)
        below_one("DROPOUT_RATE", self.dropout_rate)
        above_zero("ModelConfig.init_scale", self.init_scale)
        if self.switch and self.switch.attention_dtype == "bfloat16" and self.dtype == "float32":
            raise UserError(
                "SwitchConfig.attention_dtype='bfloat16' does not go with DTYPE='float32': "
                "experts in attention need at least the precision of the model."
            )
        if self.num_decoder_layers is not None:
            at_least("ModelConfig.num_decoder_layers", self.num_decoder_layers, 0)
        self._check_positions()
        if self.switch:
            self._check_sparse(self.switch)

    def _check_positions(self) -> None:
        """Half of the buckets are distances, the others reach on from these to the largest one."""
        at_least("ModelConfig.relative_buckets", self.relative_buckets, 4)
        near = self.relative_buckets // (4 if self.encoder_alone else 2)
        if self.relative_max_distance <= near:
            raise UserError(
                f"ModelConfig.relative_max_distance={self.relative_max_distance} must be above "
                f"{near}, the distances that ModelConfig.relative_buckets={self.relative_buckets} "
                "has a bucket each for."
            )

    def _check_sparse(self, switch: SwitchConfig) -> None:
        if self.encoder_alone and switch.decoder_sparse:
            raise UserError(
                f"SwitchConfig.decoder_sparse={switch.decoder_sparse!r} with ModelConfig."
                "num_decoder_layers=0, an encoder alone: leave it out."
            )
        for name, shape in self.stacks.items():
            if shape.num_sparse and shape.sparse_layers[-1] >= shape.num_layers:
                raise UserError(
                    f"SwitchConfig.{name}_sparse={getattr(switch, f'{name}_sparse')!r}: the {name} "
                    f"has {shape.num_layers} layers, so name none above {shape.num_layers - 1}."
                )
        if not self.encoder.num_sparse and not self.decoder.num_sparse:
            raise UserError(
                f"ModelConfig.num_layers={self.num_layers} with SwitchConfig.every={switch.every} "
                "leaves no layer with experts: set SwitchConfig.every to at most the number of "
                "layers, or ModelConfig.switch=None for a dense model."
            )

    @property
    def expert_widths(self) -> tuple[tuple[int, int], ...]:
        """How many experts a layer has of each d_ff, in the order of their numbers; () of none."""
        if self.switch is None:
            return ()
        return self.switch.expert_widths or ((self.switch.num_experts, self.d_ff),)

    @property
    def gated(self) -> bool:
        """Whether feed-forwards have a gate, and so a third matrix."""
        return is_gated(self.activation)

    @property
    def passes_apart(self) -> bool:
        """Whether both passes over layers are loops of their own, and nothing is computed again."""
        return self.scan and self.remat == "none"

    @property
    def scaled_logits(self) -> bool:
        """Whether logits are scaled by d_model^-0.5."""
        return self.tied_embeddings if self.scale_logits is None else self.scale_logits

    @property
    def stacks(self) -> dict[str, StackShape]:
        """The stacks that there are by name, the one whose outputs become logits last."""
        both = {"encoder": self.encoder, "decoder": self.decoder}
        return {name: shape for name, shape in both.items() if shape.num_layers}

    @property
    def encoder_alone(self) -> bool:
        """Whether there is no decoder: what needs one refuses."""
        return self.num_decoder_layers == 0

    @property
    def encoder(self) -> StackShape:
        """The layers of the encoder."""
        sparse = self.switch.sparse(causal=False) if self.switch else ()
        return StackShape.of(self.num_layers, sparse)

    @property
    def decoder(self) -> StackShape:
        """The layers of the decoder."""
        layers = self.num_layers if self.num_decoder_layers is None else self.num_decoder_layers
        return StackShape.of(layers, self.switch.sparse(causal=True) if self.switch else ())
