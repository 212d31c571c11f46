"""A stack of layers: equal blocks run as one loop, their parameters on a leading `layers` axis."""

from collections.abc import Callable
from typing import Any, Generic

import jax
import jax.numpy as jnp
from flax import nnx

from switchx.model.attention import Kept
from switchx.model.blocks import Block, C, DecoderLayer, EncoderLayer, StepContext
from switchx.model.config import ModelConfig
from switchx.model.in_stacks import InStacks, in_stacks
from switchx.model.noise import Noise
from switchx.model.ranges import Ranges
from switchx.model.remat import POLICIES, recomputed
from switchx.model.shape import Blocks, StackShape
from switchx.model.switch_layer import Routed


class Stack(nnx.Module, Generic[C]):
    """A stack's layers, as rows of equal blocks (`StackShape.blocks`).

    Each row is an attribute of its name: one block whose parameters have a leading N axis.
    """

    def __init__(
        self,
        config: ModelConfig,
        shape: StackShape,
        layer: type[EncoderLayer] | type[DecoderLayer],
        rngs: nnx.Rngs,
    ):
        self.config, self.shape = config, shape
        for row in shape.blocks:
            setattr(self, row.name, self._make(row, layer, rngs))

    def _make(
        self, row: Blocks, layer: type[EncoderLayer] | type[DecoderLayer], rngs: nnx.Rngs
    ) -> Block[C]:
        """A row's block, its parameters stacked."""

        def make(key: jax.Array) -> Block[C]:
            return Block(self.config, layer, row.sparse, nnx.Rngs(params=key))

        blocks = nnx.vmap(make)(jax.random.split(rngs.params(), row.num_blocks))
        for _, param in nnx.to_flat_state(nnx.state(blocks)):
            param.set_metadata(axes=("layers", *param.axes))
        return blocks

    def __call__(
        self, x_BLD: jax.Array, context: C, noise: Noise
    ) -> tuple[jax.Array, Routed | None, dict[str, dict[str, Ranges]]]:
        """Runs the blocks in order.

        Args:
          context: passed to every block as it is.
          noise: folded with the block's number in the stack.

        Returns:
          [B, L, D]; what was routed, all layers with experts in order on one leading axis; by row
          the ranges of each layer of its block, [N], where the grouping is watched.
        """
        routed, ranges = [], {}
        for row in self.shape.blocks:
            x_BLD, routed_N, ranges_N = self._run(row, x_BLD, context, noise)
            if routed_N is not None:
                routed.append(routed_N)
            if ranges_N:
                ranges[row.name] = ranges_N
        joined = jax.tree.map(lambda *rows: jnp.concatenate(rows), *routed) if routed else None
        return x_BLD, joined, ranges

    def _run(
        self, row: Blocks, x_BLD: jax.Array, context: C, noise: Noise
    ) -> tuple[jax.Array, Routed | None, dict[str, Ranges]]:
        """One row of equal blocks, see __call__."""
        chosen = in_stacks(self.config, context.grouping, *x_BLD.shape[:2])
        stacks = InStacks(getattr(self, row.name), chosen)

        def body(carry: Any, per_block: Any) -> tuple[Any, Any]:
            (x_BLD, passed), (params, number) = carry, per_block
            block = stacks.block(params, passed, number - row.first_block)
            x_BLD, *returned = block(x_BLD, context, noise.fold(number))
            return (x_BLD, stacks.handed_on(block)), tuple(returned)

        if self.config.remat != "none":
            policy = POLICIES[self.config.remat]
            body = recomputed(body, policy=policy, looped=self.config.scan)
        numbers_N = jnp.arange(row.first_block, row.first_block + row.num_blocks, dtype=jnp.uint32)
        # Without gradients nothing is kept for a backward pass: a loop loses nothing.
        run = jax.lax.scan if self.config.scan or noise.silent else _unrolled
        (x_BLD, passed), returned_N = run(
            body, (x_BLD, stacks.passed), (stacks.others_N, numbers_N)
        )
        x_BLD = stacks.ended(x_BLD, passed)
        routed_N, ranges_N = returned_N
        # [blocks, routed layers of a block, ...] to [routed layers, ...].
        routed_N = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), routed_N)
        return x_BLD, routed_N, ranges_N

    def cross_kept(self, encoded_BMD: jax.Array) -> list[list[Kept]]:
        """Of a decoder: the encoder's keys and values, [N, ...] for each layer of a row's block."""

        def of_row(row: Blocks) -> list[Kept]:
            graphdef, params_N = nnx.split(getattr(self, row.name))

            def of_block(params: Any) -> list[Kept]:
                layers = nnx.merge(graphdef, params).layers
                return [
                    Kept.of(*layer.cross_attention.keys_values(encoded_BMD)) for layer in layers
                ]

            return jax.lax.map(of_block, params_N)

        return [of_row(row) for row in self.shape.blocks]

    def step(
        self,
        x_BPD: jax.Array,
        context: StepContext,
        own: list[list[Kept]],
        cross: list[list[Kept]],
    ) -> tuple[jax.Array, list[list[Kept]]]:
        """Of a decoder: one more token through all blocks, see DecoderLayer.step.

        What the layers keep, of each row as `cross_kept` gives it, is carried through the row's
        loop whole, and so written where it lies.
        """
        after = []
        for row, own_N, cross_N in zip(self.shape.blocks, own, cross, strict=True):
            x_BPD, own_N = self._step(row, x_BPD, context, own_N, cross_N)
            after.append(own_N)
        return x_BPD, after

    def _step(
        self,
        row: Blocks,
        x_BPD: jax.Array,
        context: StepContext,
        own_N: list[Kept],
        cross_N: list[Kept],
    ) -> tuple[jax.Array, list[Kept]]:
        """One row of equal blocks, see `step`."""
        graphdef, params_N = nnx.split(getattr(self, row.name))

        def body(carry: Any, per_block: Any) -> tuple[Any, None]:
            (x_BPD, own_N), (params, number, cross) = carry, per_block
            own_N = list(own_N)
            for i, layer in enumerate(nnx.merge(graphdef, params).layers):
                x_BPD, own_N[i] = layer.step(x_BPD, context, own_N[i], number, cross[i])
            return (x_BPD, own_N), None

        numbers_N = jnp.arange(row.num_blocks)
        carry, _ = jax.lax.scan(body, (x_BPD, own_N), (params_N, numbers_N, cross_N))
        return carry


def _unrolled(body: Callable, carry: Any, xs: Any) -> tuple[Any, Any]:
    """jax.lax.scan as straight-line code."""
    split = jax.tree.map(_entries, xs)
    entries = jax.tree.transpose(jax.tree.structure(xs), None, split)
    rows = []
    for entry in entries:
        carry, row = body(carry, entry)
        rows.append(row)
    return carry, jax.tree.map(lambda *row: jnp.stack(row), *rows)


def _entries(x_N: jax.Array) -> list[jax.Array]:
    """x_N[0], x_N[1], ...; their gradients are put together, not added up as those of slices."""
    return [x[0] for x in jax.lax.split(x_N, (1,) * x_N.shape[0])]
