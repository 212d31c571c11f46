"""How large what a part of the model computed is, so that the first that is not finite is found."""

import dataclasses

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Range:
    """Of an array, or of each row of its leading axes; float32.

    Attributes:
      not_finite: how many elements are infinite or no number.
      largest: the largest absolute value among the others.
    """

    not_finite: jax.Array
    largest: jax.Array

    @classmethod
    def of(cls, x: jax.Array, leading: int = 0) -> "Range":
        """`leading`: how many axes are rows of their own."""
        axes, finite = tuple(range(leading, x.ndim)), jnp.isfinite(x)
        size = jnp.where(finite, jnp.abs(x.astype(jnp.float32)), 0.0)
        return cls(
            jnp.sum(~finite, axis=axes, dtype=jnp.float32), jnp.max(size, axis=axes, initial=0.0)
        )


Ranges = dict[str, Range]
# What a layer computes, in this order; a part that a layer does not have is left out.
PARTS = (
    "attention_router",
    "attention_experts",
    "attention",
    "cross_attention",
    "router",
    "experts",
    "feed_forward",
    "output",
)
