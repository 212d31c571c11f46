"""Which tensor of transformers is which part of which parameter of ours."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from switchx.model import ModelConfig, Params

Path = tuple[str, ...]

TABLE, LOGITS = "shared.weight", "lm_head.weight"
STACK_TABLES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")


@dataclasses.dataclass(frozen=True)
class Piece:
    """One tensor of transformers.

    Attributes:
      name: transformers' own.
      path: of our parameter.
      place: the tensor's place in the parameter's leading dimensions: none, (block,) or
        (block, expert).
      transposed: torch keeps a product's matrix as [out, in], we as [in, out].
      copies: further names under which transformers 5 looks for the same numbers.
    """

    name: str
    path: Path
    place: tuple[int, ...] = ()
    transposed: bool = False
    copies: tuple[str, ...] = ()

    def shape(self, params: Params) -> tuple[int, ...]:
        """The tensor's shape, from parameters or their jax.ShapeDtypeStruct."""
        own = leaf(params, self.path).shape[len(self.place) :]
        return own[::-1] if self.transposed else own


def leaf(params: Params, path: Path) -> Any:
    """The parameter at a path."""
    for key in path:
        params = params[key]
    return params


def pieces(config: ModelConfig) -> Iterator[Piece]:
    """All tensors of a model: `switch_transformers` with switch layers, `t5` or `umt5` without."""
    # With tie_word_embeddings=False, which to transformers 5 says that logits are not scaled, it
    # unties Switch's two stacks from the shared table as well (not T5's) and would make up what it
    # does not find; transformers 4 would do so with the logits' matrix.
    copies: tuple[str, ...] = ()
    if not config.scaled_logits:
        copies = STACK_TABLES[: len(config.stacks)] if config.switch is not None else ()
        copies += (LOGITS,) if config.tied_embeddings else ()
    yield Piece(TABLE, ("embedding", "table_VD"), copies=copies)
    if not config.tied_embeddings:
        yield Piece(LOGITS, ("embedding", "logits_DV"), transposed=True)
    for stack in config.stacks:
        if not config.bias_per_layer:
            yield Piece(_bias(stack, 0), (f"{stack}_bias", "table_HR"), transposed=True)
        yield Piece(f"{stack}.final_layer_norm.weight", (f"{stack}_norm", "scale_D"))
        for number in range(config.stacks[stack].num_layers):
            yield from _layer(config, stack, number)


def _bias(stack: str, number: int) -> str:
    return f"{stack}.block.{number}.layer.0.SelfAttention.relative_attention_bias.weight"


def _layer(config: ModelConfig, stack: str, number: int) -> Iterator[Piece]:
    shape = config.stacks[stack]
    blocks, layer, block = shape.place(number)
    path: Path = (stack, blocks, f"layer_{layer}")
    if config.bias_per_layer:
        table = (*path, "attention_bias", "table_HR")
        yield Piece(_bias(stack, number), table, (block,), True)
    sublayers = [("SelfAttention", "attention", "attention_norm")]
    if stack == "decoder":
        sublayers.append(("EncDecAttention", "cross_attention", "cross_norm"))
    for i, (theirs, ours, norm) in enumerate(sublayers):
        prefix = f"{stack}.block.{number}.layer.{i}"
        yield Piece(f"{prefix}.layer_norm.weight", (*path, norm, "scale_D"), (block,))
        for letter, kernel in (("q", "query"), ("k", "key"), ("v", "value"), ("o", "out")):
            own = (*path, ours, f"{kernel}_{'TD' if letter == 'o' else 'DT'}")
            yield Piece(f"{prefix}.{theirs}.{letter}.weight", own, (block,), True)
    prefix = f"{stack}.block.{number}.layer.{len(sublayers)}"
    path = (*path, "feed_forward")
    yield Piece(f"{prefix}.layer_norm.weight", (*path, "norm", "scale_D"), (block,))
    if config.switch and number in shape.sparse_layers:
        yield from _experts(config.switch.num_experts, prefix, path, block)
    else:
        yield from _dense(config, prefix, path, block)


def _dense(config: ModelConfig, prefix: str, path: Path, block: int) -> Iterator[Piece]:
    names = {"wi": "wi_DF", "wo": "wo_FD"}
    if config.gated:
        names = {"wi_0": "gate_DF", "wi_1": "wi_DF", "wo": "wo_FD"}
    kind = "mlp" if config.switch else "DenseReluDense"
    for theirs, ours in names.items():
        yield Piece(f"{prefix}.{kind}.{theirs}.weight", (*path, "dense", ours), (block,), True)


def _experts(num_experts: int, prefix: str, path: Path, block: int) -> Iterator[Piece]:
    path = (*path, "switch")
    router = (*path, "router", "kernel_DE")
    yield Piece(f"{prefix}.mlp.router.classifier.weight", router, (block,), True)
    for theirs, ours in (("wi", "wi_EDF"), ("wo", "wo_EFD")):
        for expert in range(num_experts):
            name = f"{prefix}.mlp.experts.expert_{expert}.{theirs}.weight"
            yield Piece(name, (*path, "experts", ours), (block, expert), True)
