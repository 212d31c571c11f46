"""A stack of identical blocks, its parameters on a leading `layers` axis, run as one loop."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from switchx.model.config import ModelConfig
from switchx.model.noise import Noise

# Saved for the backward pass under "dots": products with parameters, not attention's products
# of activations, which are large and cheap.
_POLICIES = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Stack(nnx.Module):
    """N blocks of one kind. `blocks` is one block whose parameters have a leading N axis."""

    def __init__(
        self, config: ModelConfig, make_block: Callable[[nnx.Rngs], nnx.Module], rngs: nnx.Rngs
    ):
        self.config = config
        keys_N = jax.random.split(rngs.params(), config.num_blocks)
        self.blocks = nnx.vmap(lambda key: make_block(nnx.Rngs(params=key)))(keys_N)
        for _, param in nnx.to_flat_state(nnx.state(self.blocks)):
            param.set_metadata(axes=("layers", *param.axes))

    def __call__(
        self, x_BLD: jax.Array, context: Any, noise: Noise | None, cache_N: Any = None
    ) -> tuple[jax.Array, Any, Any]:
        """Runs the blocks in order.

        Args:
          context: passed to every block as it is.
          noise: folded with the block's number.
          cache_N: one block's cache with a leading N axis, or None.

        Returns:
          [B, L, D]; the statistics of all routed layers in order, on one leading axis; the
          blocks' caches, each with a leading N axis.
        """
        graphdef, params_N = nnx.split(self.blocks)

        def body(x_BLD: jax.Array, per_block: Any) -> tuple[jax.Array, Any]:
            params, number, cache = per_block
            block = nnx.merge(graphdef, params)
            folded = None if noise is None else noise.fold(number)
            x_BLD, stats, cache = block(x_BLD, context, folded, cache)
            return x_BLD, (stats, cache)

        if self.config.remat != "none":
            body = jax.checkpoint(body, policy=_POLICIES[self.config.remat])
        numbers_N = jnp.arange(self.config.num_blocks, dtype=jnp.uint32)
        loop = jax.lax.scan if self.config.scan else _unrolled
        x_BLD, (stats_N, cache_N) = loop(body, x_BLD, (params_N, numbers_N, cache_N))
        # [blocks, routed layers of a block, ...] to [routed layers, ...].
        stats_N = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), stats_N)
        return x_BLD, stats_N, cache_N


def _unrolled(body: Callable, carry: Any, xs: Any) -> tuple[Any, Any]:
    """jax.lax.scan as straight-line code, for comparing the two."""
    rows = []
    for n in range(jax.tree.leaves(xs)[0].shape[0]):
        carry, row = body(carry, jax.tree.map(lambda x, n=n: x[n], xs))
        rows.append(row)
    return carry, jax.tree.map(lambda *row: jnp.stack(row), *rows)
