"""A stack of identical blocks, its parameters on a leading `layers` axis, run as one loop."""

from collections.abc import Callable
from typing import Any, Generic

import jax
import jax.numpy as jnp
from flax import nnx

from switchx.model.attention import Kept
from switchx.model.blocks import Block, C, DecoderLayer, EncoderLayer, StepContext
from switchx.model.config import ModelConfig, StackShape
from switchx.model.noise import Noise
from switchx.model.ranges import Ranges
from switchx.model.switch_layer import Routed

# Saved for the backward pass under "dots": products with parameters, not attention's products
# of activations, which are large and cheap.
_POLICIES = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Stack(nnx.Module, Generic[C]):
    """N blocks of one kind. `blocks` is one block whose parameters have a leading N axis."""

    def __init__(
        self,
        config: ModelConfig,
        shape: StackShape,
        layer: type[EncoderLayer] | type[DecoderLayer],
        rngs: nnx.Rngs,
    ):
        self.config, self.shape = config, shape
        keys_N = jax.random.split(rngs.params(), shape.num_blocks)

        def make(key: jax.Array) -> Block[C]:
            return Block(config, layer, shape.period, nnx.Rngs(params=key))

        self.blocks = nnx.vmap(make)(keys_N)
        for _, param in nnx.to_flat_state(nnx.state(self.blocks)):
            param.set_metadata(axes=("layers", *param.axes))

    def __call__(
        self, x_BLD: jax.Array, context: C, noise: Noise
    ) -> tuple[jax.Array, Routed | None, dict[str, Ranges]]:
        """Runs the blocks in order.

        Args:
          context: passed to every block as it is.
          noise: folded with the block's number.

        Returns:
          [B, L, D]; what was routed, all layers with experts in order on one leading axis; the
          ranges of each layer of a block, [N], where the grouping is watched.
        """
        graphdef, params_N = nnx.split(self.blocks)

        def body(x_BLD: jax.Array, per_block: Any) -> tuple[jax.Array, Any]:
            params, number = per_block
            block = nnx.merge(graphdef, params)
            x_BLD, *returned = block(x_BLD, context, noise.fold(number))
            return x_BLD, tuple(returned)

        if self.config.remat != "none":
            body = jax.checkpoint(body, policy=_POLICIES[self.config.remat])
        numbers_N = jnp.arange(self.shape.num_blocks, dtype=jnp.uint32)
        x_BLD, returned_N = self._loop(body, x_BLD, (params_N, numbers_N))
        routed_N, ranges_N = returned_N
        # [blocks, routed layers of a block, ...] to [routed layers, ...].
        routed_N = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), routed_N)
        return x_BLD, routed_N, ranges_N

    def cross_kept(self, encoded_BMD: jax.Array) -> list[Kept]:
        """Of a decoder: the encoder's keys and values for each layer of a block, [N, ...]."""
        graphdef, params_N = nnx.split(self.blocks)

        def of_block(params: Any) -> list[Kept]:
            layers = nnx.merge(graphdef, params).layers
            return [Kept.of(*layer.cross_attention.keys_values(encoded_BMD)) for layer in layers]

        return jax.lax.map(of_block, params_N)

    def step(
        self, x_BPD: jax.Array, context: StepContext, own_N: list[Kept], cross_N: list[Kept]
    ) -> tuple[jax.Array, list[Kept]]:
        """Of a decoder: one more token through all blocks, see DecoderLayer.step.

        What the layers keep is carried through the loop whole, and so written where it lies.
        """
        graphdef, params_N = nnx.split(self.blocks)

        def body(carry: Any, per_block: Any) -> tuple[Any, None]:
            (x_BPD, own_N), (params, number, cross) = carry, per_block
            own_N = list(own_N)
            for i, layer in enumerate(nnx.merge(graphdef, params).layers):
                x_BPD, own_N[i] = layer.step(x_BPD, context, own_N[i], number, cross[i])
            return (x_BPD, own_N), None

        numbers_N = jnp.arange(self.shape.num_blocks)
        carry, _ = self._loop(body, (x_BPD, own_N), (params_N, numbers_N, cross_N))
        return carry

    @property
    def _loop(self) -> Callable:
        return jax.lax.scan if self.config.scan else _unrolled


def _unrolled(body: Callable, carry: Any, xs: Any) -> tuple[Any, Any]:
    """jax.lax.scan as straight-line code, for comparing the two."""
    rows = []
    for n in range(jax.tree.leaves(xs)[0].shape[0]):
        carry, row = body(carry, jax.tree.map(lambda x, n=n: x[n], xs))
        rows.append(row)
    return carry, jax.tree.map(lambda *row: jnp.stack(row), *rows)
