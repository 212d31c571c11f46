"""Parameters by what they are of: the groups in which they are counted and frozen."""

from collections.abc import Sequence

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
