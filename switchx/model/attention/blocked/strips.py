"""The bias of blocks of logits, from the numbers on its diagonals, and back.

Blocks on one diagonal of blocks have the same bias: that of key block j to query block i is
number j - i + query_blocks - 1. A block is made of one strip of diagonals.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from switchx.model.attention.blocked.tiles import LANES, Tiles


def count(t: Tiles) -> int:
    """How many different blocks there are of one head."""
    return t.query_blocks + t.key_blocks - 1


def block_shape(t: Tiles) -> tuple[int, int]:
    """Keys and queries of a block of the bias, padded: a power of two, and whole vectors."""
    return max(8, 1 << (t.m - 1).bit_length()), -(-t.l // LANES) * LANES


def _length(t: Tiles) -> int:
    return -(-sum(block_shape(t)) // LANES) * LANES


def strips_of(bias_HW: jax.Array, t: Tiles) -> jax.Array:
    """[programs, n count, length]: the strip of each head and block."""
    rows, length = block_shape(t)[0], _length(t)
    backward_HW = jnp.pad(bias_HW[:, ::-1], ((0, 0), (rows, length)))
    starts = (t.M - (number + 1 - t.query_blocks) * t.m for number in range(count(t)))
    strips = jnp.stack([backward_HW[:, x : x + length] for x in starts], axis=1)
    return strips.reshape(t.programs, t.n * count(t), length)


def bias_of(dstrips: jax.Array, bias_HW: jax.Array, t: Tiles) -> jax.Array:
    """The adjoint of `strips_of`."""
    (dbias_HW,) = jax.linear_transpose(lambda x_HW: strips_of(x_HW, t), bias_HW)(dstrips)
    return dbias_HW


def spread(strips_ref: Any, bias_ref: Any, t: Tiles) -> None:
    """In a kernel: a program's strips to its blocks, [n, count, keys, queries].

    Row m of a block is its strip from element rows - 1 - m on.
    """
    (rows, columns), length = block_shape(t), _length(t)

    def one(index: jax.Array, _: None) -> None:
        strip = jnp.broadcast_to(strips_ref[0, pl.ds(index, 1)], (rows, length))
        turned = pltpu.roll(strip, length - rows + 1, 1, stride=1, stride_axis=0)
        bias_ref[index // count(t), index % count(t)] = turned[:, :columns]

    jax.lax.fori_loop(0, t.n * count(t), one, None)


def gather(dbias_ref: Any, dstrips_ref: Any, t: Tiles) -> None:
    """In a kernel: the adjoint of `spread`.

    By halves: rows of the upper half lie further on in the strip, by as many as it has.
    """
    (rows, columns), length = block_shape(t), _length(t)

    def one(index: jax.Array, _: None) -> None:
        block = dbias_ref[index // count(t), index % count(t)]
        x = jnp.concatenate([block, jnp.zeros((rows, length - columns), block.dtype)], axis=1)
        while (half := x.shape[0] // 2) > 0:
            x = pltpu.roll(x[:half], half, 1) + x[half:]
        dstrips_ref[0, pl.ds(index, 1)] = x

    jax.lax.fori_loop(0, t.n * count(t), one, None)
