"""Randomness as a function of (seed, step, row of the batch, site in the model).

Dropout and jitter must not change when the same step runs on another mesh, in microbatches or
scanned. So every random number is a hash of where it is used: a key per sequence, folded with
the layer and the site, and the element's index within the sequence. The hash is elementwise, so
it fuses into its use, shards like any other elementwise code, and is recomputed in the backward
pass for less than reading it back would cost. (Threefry has the same property but takes a large
share of a CPU step; the hardware generators change their numbers with the mesh.)
"""

import dataclasses
import functools
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

_GOLDEN, _OTHER = 0x9E3779B9, 0x85EBCA6B


def _mix(x: jax.Array) -> jax.Array:
    """A bijection of uint32 in which every input bit flips each output bit half the time.

    The constants are Chris Wellons' "lowbias32", the least biased found of this form.
    """
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def _mix_int(x: int) -> int:
    """`_mix` of a Python integer."""
    x = (x ^ (x >> 16)) * 0x7FEB352D & 0xFFFFFFFF
    x = (x ^ (x >> 15)) * 0x846CA68B & 0xFFFFFFFF
    return x ^ (x >> 16)


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["low_B", "high_B"], meta_fields=["site"]
)
@dataclasses.dataclass(frozen=True)
class Noise:
    """One 64-bit key per row: `low_B` and `high_B`, uint32 [B]. B may also count groups.

    `site` is the part of the key that is known while tracing, and costs no operation. Where
    nothing is random, as in evaluation, NO_NOISE stands in its place and is `silent`.
    """

    low_B: jax.Array
    high_B: jax.Array
    site: int = 0

    silent: ClassVar[bool] = False

    @classmethod
    def for_rows(cls, seed: int | jax.Array, step: jax.Array, row_B: jax.Array) -> "Noise":
        """Keys of the rows `row_B` (int, [B], index in the global batch) at `step`.

        Args:
          seed: a number, or, so that one program serves any, the `seed_key` of one.
        """
        low, high = seed_key(seed) if isinstance(seed, int) else seed
        zero_B = jnp.zeros(row_B.shape, jnp.uint32)
        return _folded(zero_B + low, zero_B + high, step).fold(row_B)

    def fold(self, site: int | jax.Array) -> "Noise":
        """Independent keys for a site: a number, a scalar, or one number per row, int [B]."""
        if isinstance(site, int):
            return dataclasses.replace(self, site=_folded_int(self.site, site))
        return _folded(*self.key(), site)

    def key(self) -> tuple[jax.Array, jax.Array]:
        """The key in full, uint32 [B] twice, the site included."""
        low, high = _key_int(self.site)
        return self.low_B + jnp.uint32(low), self.high_B + jnp.uint32(high)

    def regroup(self, num_groups: int, tokens_per_row: int) -> "Noise":
        """Keys per group, [G], where the rows' tokens are cut in order into equal groups.

        A group's key depends on the row and position of its first token alone, so it is the
        same in whichever microbatch the group runs.
        """
        group_size = self.low_B.shape[0] * tokens_per_row // num_groups
        start_G = jnp.arange(num_groups, dtype=jnp.uint32) * jnp.uint32(group_size)
        row_G, offset_G = start_G // tokens_per_row, start_G % tokens_per_row
        return self.take(row_G).fold(offset_G)

    def per_choice(self, tokens: int, choices: int) -> "Noise":
        """Keys per choice of each token of a group, in that order: [G * tokens * choices]."""
        number_R = jnp.arange(self.low_B.shape[0] * tokens * choices, dtype=jnp.uint32)
        per_group = tokens * choices
        return self.take(number_R // per_group).fold(number_R % per_group)

    def shifted(self, by: int | jax.Array) -> "Noise":
        """Keys whose numbers of shape [n] are this one's from `by` on: for a device's share."""
        return dataclasses.replace(self, low_B=self.low_B + jnp.asarray(by, jnp.uint32))

    def in_line(self) -> "Noise":
        """Keys that have several dimensions, all in one."""
        return Noise(self.low_B.reshape(-1), self.high_B.reshape(-1), self.site)

    def take(self, index_R: jax.Array) -> "Noise":
        """The keys of these rows."""
        return Noise(self.low_B[index_R], self.high_B[index_R], self.site)

    def bits(self, shape: tuple[int, ...]) -> jax.Array:
        """Uniform uint32 of shape [B, *shape]; keys may have several dimensions."""
        index = jnp.zeros((1,) * len(shape), jnp.uint32)
        for axis in range(len(shape)):
            along = tuple(n if a == axis else 1 for a, n in enumerate(shape))
            stride = jnp.uint32(math.prod(shape[axis + 1 :]) % 2**32)
            index = index + stride * jax.lax.broadcasted_iota(jnp.uint32, along, axis)
        low, high = (key.reshape(*key.shape, *(1,) * len(shape)) for key in self.key())
        return _mix(_mix(index + low) ^ high)

    def uniform(self, shape: tuple[int, ...], low: float, high: float) -> jax.Array:
        """float32 in [low, high), of shape [B, *shape]."""
        unit = (self.bits(shape) >> 8).astype(jnp.float32) * jnp.float32(2.0**-24)
        return low + (high - low) * unit


def seed_key(seed: int) -> np.ndarray:
    """What the rows' keys are made of, of a seed: uint32 [2]."""
    return np.array(_key_int(_folded_int(0, seed)), np.uint32)


def _folded(low_B: jax.Array, high_B: jax.Array, site: jax.Array) -> Noise:
    low_B = _mix(low_B + site.astype(jnp.uint32) + jnp.uint32(_GOLDEN))
    return Noise(low_B, _mix(high_B ^ _mix(low_B + jnp.uint32(_OTHER))))


def _folded_int(site: int, number: int) -> int:
    return _mix_int((_mix_int((site + _GOLDEN) % 2**32) + number + _OTHER) % 2**32)


def _key_int(site: int) -> tuple[int, int]:
    return site, _mix_int(site ^ _OTHER)


class _Silence(Noise):
    """Noise of which every key is silence. Has no arrays."""

    silent = True

    def __init__(self) -> None:
        pass

    def fold(self, site: int | jax.Array) -> Noise:
        return self

    def regroup(self, num_groups: int, tokens_per_row: int) -> Noise:
        return self

    def per_choice(self, tokens: int, choices: int) -> Noise:
        return self

    def shifted(self, by: int | jax.Array) -> Noise:
        return self

    def in_line(self) -> Noise:
        return self

    def take(self, index_R: jax.Array) -> Noise:
        return self


NO_NOISE: Noise = _Silence()
jax.tree_util.register_pytree_node(_Silence, lambda _: ((), None), lambda *_: _Silence())


def dropout(x: jax.Array, rate: float, noise: Noise, shared_axis: int | None = None) -> jax.Array:
    """Zeroes elements of `x` [B, ...] with probability `rate` and scales the rest to keep the mean.

    Args:
      noise: one key per row of `x`; of NO_NOISE it returns `x`.
      shared_axis: an axis along which one decision holds, as T5 does along the length.
    """
    if noise.silent or rate == 0.0:
        return x
    shape = tuple(1 if axis == shared_axis else n for axis, n in enumerate(x.shape))
    keep = noise.bits(shape[noise.low_B.ndim :]) >= jnp.uint32(round(rate * 2**32))
    # A product, not a selection: what is kept for the backward pass is then as small as `shape`.
    return x * jnp.where(keep, 1.0 / (1.0 - rate), 0.0).astype(x.dtype)
