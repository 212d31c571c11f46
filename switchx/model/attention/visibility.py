"""Which keys a query may see, told by what makes it, not by an array of every pair."""

import dataclasses

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Visibility:
    """A query sees the keys of its own segment; under `causal`, of them those no later than it.

    Attributes:
      query_BL: int32, each query's segment; None: 1 where key_BM is None, any where it is not.
      key_BM: int32, each key's segment, 0 for one that nobody sees; None: all are of segment 1.
      causal: whether a query sees none that stands after it.
    """

    query_BL: jax.Array | None = None
    key_BM: jax.Array | None = None
    causal: bool = dataclasses.field(default=False, metadata={"static": True})

    def mask(self, L: int, M: int) -> jax.Array:
        """bool, True where a key may be seen; B and L may be 1."""
        visible_BLM = jnp.ones((1, 1, 1), bool)
        if self.causal:
            visible_BLM = jnp.tril(jnp.ones((1, L, M), bool))
        if self.key_BM is not None:
            visible_BLM = visible_BLM & (self.key_BM > 0)[:, None]
        if self.query_BL is not None:
            key_B1M = 1 if self.key_BM is None else self.key_BM[:, None]
            visible_BLM = visible_BLM & (self.query_BL[:, :, None] == key_B1M)
        return visible_BLM
