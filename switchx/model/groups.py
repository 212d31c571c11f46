"""Parameters by what they are of: the groups in which they are counted and frozen."""

from collections.abc import Sequence
from fractions import Fraction

from switchx.model.config import ModelConfig

GROUPS = ("embedding", "attention", "dense", "experts", "router", "norms")


def group_of(name: str) -> str:
    """The group of a parameter, by its name, as "encoder/blocks/layer_0/attention_norm/scale_D".

    Attention has the tables of relative positions, and the embedding the logits' matrix where that
    is one of its own. Experts are those of attention too, and "dense" is every other feed-forward.
    """
    path: Sequence[str] = name.split("/")
    if any("norm" in part for part in path):
        return "norms"
    for group in ("embedding", "router", "experts"):
        if group in path:
            return group
    return "dense" if "feed_forward" in path else "attention"


def product_flops(
    config: ModelConfig, name: str, size: int, input_length: int, target_length: int
) -> int:
    """FLOPs of a sequence's products with a parameter, as `forward_flops` counts them.

    It counts none of routers, norms and relative positions, nor of looking up an embedding.
    """
    group = group_of(name)
    looked_up = name == "embedding/table_VD" and not config.tied_embeddings
    if group in ("router", "norms") or "_bias/" in name or looked_up:
        return 0
    if group == "experts" and config.switch is not None:
        width = next((part for part in name.split("/") if part.startswith("width_")), "width_0")
        _, share = config.switch.token_shares[int(width.removeprefix("width_"))]
        uses = config.switch.top_k * share * size
    else:
        uses = Fraction(size)
    of_inputs = config.encoder_alone or name.startswith("encoder/")
    return round(2 * uses * (input_length if of_inputs else target_length))
