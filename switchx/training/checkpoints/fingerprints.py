"""Fingerprints of arrays: 64 bits that change with any bit of them, the same on every mesh."""

import functools
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from switchx import hosts

# Any two numbers will do: each starts a sum of its own, of 32 bits.
_SEEDS = (0x9E3779B9, 0x85EBCA6B)


def fingerprints(tree: Any) -> dict[str, str]:
    """Of each array in a tree, by its path: type, shape and 16 hexadecimal digits.

    All hosts call this alike; each gets all of them. No array is gathered: the sums of a hash of
    (place, bits) over the elements are sums of integers, which come out the same in any order.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    programs = _programs(frozenset(_layout(leaf) for _, leaf in leaves))
    # One after the other: hosts on CPUs wait for each other forever where several are under way.
    sums = [np.asarray(programs[_layout(leaf)](leaf)) for _, leaf in leaves]
    return {name(path): text(leaf, both) for (path, leaf), both in zip(leaves, sums, strict=True)}


def sums_of_part(part: np.ndarray, start: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    """What a part adds to the two sums of an array of this shape, uint32 [2]: for `text`.

    `start` is where the part lies.
    """
    return np.asarray(_sums_of_part(part, np.array(start, np.uint32), tuple(shape)))


def text(leaf: Any, sums: np.ndarray) -> str:
    """A fingerprint, of what has this type and shape."""
    return f"{kind(leaf)} {int(sums[0]):08x}{int(sums[1]):08x}"


def kinds(tree: Any) -> dict[str, str]:
    """The first words of `fingerprints`, type and shape, of a tree of arrays or their shapes."""
    return {name(path): kind(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def first_difference(saved: Mapping[str, str], found: Mapping[str, str]) -> str | None:
    """The name of an array of `found` that is not what was saved, if there is one."""
    return next((path for path, value in found.items() if saved.get(path) != value), None)


def kind(leaf: Any) -> str:
    """Type and shape in one word: float32[2,128]."""
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def name(path: tuple[Any, ...]) -> str:
    """A leaf's path in a tree, in words."""
    return "/".join(str(getattr(key, "key", getattr(key, "name", key))).strip(".") for key in path)


def _layout(x: jax.Array) -> tuple:
    return x.shape, x.dtype, x.sharding


@functools.lru_cache(maxsize=8)
def _programs(layouts: frozenset) -> dict[tuple, Any]:
    """A program for each kind of array: many are alike, so this compiles sooner than one of all."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # compiling one keeps one core busy
        programs = dict(zip(layouts, pool.map(lambda of: _compile(*of), layouts), strict=True))
    hosts.compiled_everywhere("check arrays")
    return programs


@functools.lru_cache(maxsize=256)  # of the parameters alone they are among those of a state
def _compile(shape: tuple[int, ...], dtype: Any, sharding: NamedSharding) -> Any:
    everywhere = NamedSharding(sharding.mesh, PartitionSpec())
    with jax.set_mesh(sharding.mesh):  # type: ignore[arg-type]
        jitted = jax.jit(_sums, out_shardings=everywhere)
        return jitted.lower(jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)).compile()


def _sums(x: jax.Array) -> jax.Array:
    """Two sums over the elements of hashes of place and bits, uint32."""
    return _sums_of_part(x, (0,) * x.ndim, x.shape)


@functools.partial(jax.jit, static_argnums=2)
def _sums_of_part(x: jax.Array, start: Any, shape: tuple[int, ...]) -> jax.Array:
    width = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
    bits = x.astype(jnp.uint8) if x.dtype == bool else jax.lax.bitcast_convert_type(x, width)
    bits, place = bits.astype(jnp.uint32), _places(x.shape, start, shape)
    return jnp.stack([jnp.sum(_mix(bits ^ _mix(place ^ jnp.uint32(seed)))) for seed in _SEEDS])


def _places(part: tuple[int, ...], start: Any, shape: tuple[int, ...]) -> jax.Array:
    """Each element's number in the whole array, counted in rows; beyond 2^32 it begins again."""
    place, stride = jnp.zeros(part, jnp.uint32), 1
    for axis in reversed(range(len(shape))):
        index = jax.lax.broadcasted_iota(jnp.uint32, part, axis) + jnp.uint32(start[axis])
        place += index * jnp.uint32(stride % 2**32)
        stride *= shape[axis]
    return place


def _mix(x: jax.Array) -> jax.Array:
    """The finalizer of MurmurHash3: invertible, so that no changed bit is lost before the sum."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
