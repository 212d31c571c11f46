"""T5X's names of our parameters (flaxformer's encoder-decoders, dense and sparse)."""

from collections.abc import Mapping

from switchx.errors import UserError
from switchx.model.shape import StackShape

_TOP = {
    "embedding/table_VD": "token_embedder/embedding",
    "embedding/logits_DV": "decoder/logits_dense/kernel",
    "encoder_bias/table_HR": "encoder/relpos_bias/rel_embedding",
    "decoder_bias/table_HR": "decoder/relpos_bias/rel_embedding",
    "encoder_norm/scale_D": "encoder/encoder_norm/scale",
    "decoder_norm/scale_D": "decoder/decoder_norm/scale",
}

_SUBLAYERS = {
    "encoder": {"attention_norm": "pre_attention_layer_norm", "attention": "attention"},
    "decoder": {
        "attention_norm": "pre_self_attention_layer_norm",
        "attention": "self_attention",
        "cross_norm": "pre_cross_attention_layer_norm",
        "cross_attention": "encoder_decoder_attention",
    },
}

_FEED_FORWARD = {
    "norm/scale_D": "pre_mlp_layer_norm/scale",
    "dense/wi_DF": "mlp/{wi}/kernel",
    "dense/gate_DF": "mlp/wi_0/kernel",
    "dense/wo_FD": "mlp/wo/kernel",
    "switch/router/kernel_DE": "mlp/router/router_weights/w/kernel",
    "switch/experts/wi_EDF": "mlp/expert/{wi}/kernel",
    "switch/experts/gate_EDF": "mlp/expert/wi_0/kernel",
    "switch/experts/wo_EFD": "mlp/expert/wo/kernel",
}

_LEAVES = {
    "scale_D": "scale",
    "query_DT": "query/kernel",
    "key_DT": "key/kernel",
    "value_DT": "value/kernel",
    "out_TD": "out/kernel",
}


def is_stacked(path: tuple[str, ...]) -> bool:
    """Whether the parameter has a leading axis of blocks, each an array of its own in T5X."""
    return path[1].startswith("blocks")


def array_names(path: tuple[str, ...], stacks: Mapping[str, StackShape], gated: bool) -> list[str]:
    """T5X's names of the parameter at `path` of our nested ones: one, or one per block.

    Args:
      stacks: the layers of both stacks.
      gated: whether feed-forwards are gated: T5X then numbers their two inputs.

    Raises:
      UserError: T5X has no such parameter.
    """
    if (top := _TOP.get("/".join(path))) is not None:
        return [top]
    layers = stacks[path[0]].layers_of(path[1], path[2]) if is_stacked(path) else range(0)
    below = _within_layer(path[0], path[3:]) if layers else None
    if below is None:
        raise UserError(f"A T5X checkpoint has no {'/'.join(path)}, which this model needs.")
    below = below.format(wi="wi_1" if gated else "wi")
    return [f"{path[0]}/layers_{n}/{below}" for n in layers]


def _within_layer(stack: str, rest: tuple[str, ...]) -> str | None:
    if rest[0] == "feed_forward":
        return _FEED_FORWARD.get("/".join(rest[1:]))
    sublayer, leaf = _SUBLAYERS[stack].get(rest[0]), _LEAVES.get("/".join(rest[1:]))
    return f"{sublayer}/{leaf}" if sublayer and leaf else None
