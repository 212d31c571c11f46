"""Rows of mixed lengths as batches of few shapes, shared out over the mesh, whole on every host.

A row's shape follows from its own length alone, never from its neighbours': so its numbers are the
same in whichever company it is computed, and each shape is compiled once.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from switchx.sharding import batch_sharding

Rows = Sequence[Sequence[int]]
Shape = TypeVar("Shape", int, tuple[int, int])
LEAST_INPUT, _HALF_WAY_FROM = 64, 256


def bucket(length: int, least: int) -> int:
    """The least power of two that holds so many tokens, or from 256 on half way to the next.

    Each shape costs the compilation of its programs, which more of them would not save.
    """
    size = least
    while size < length:
        half_way = size + size // 2
        size = half_way if size >= _HALF_WAY_FROM and length <= half_way else 2 * size
    return size


def same_shapes(
    numbers: Iterable[int], shape_of: Callable[[int], Shape]
) -> list[tuple[Shape, list[int]]]:
    """Each shape with the numbers of the rows that have it, in order; the largest shapes first."""
    numbers_of: dict[Shape, list[int]] = {}
    for number in numbers:
        numbers_of.setdefault(shape_of(number), []).append(number)
    return sorted(numbers_of.items(), reverse=True)


def in_batches(numbers: Sequence[int], batch_size: int) -> Iterator[Sequence[int]]:
    for first in range(0, len(numbers), batch_size):
        yield numbers[first : first + batch_size]


def padded(rows: Rows, batch_size: int, length: int) -> np.ndarray:
    """int32 [batch_size, length] with zeros where there is nothing."""
    token_BM = np.zeros((batch_size, length), np.int32)
    for row, tokens in zip(token_BM, rows, strict=False):
        row[: len(tokens)] = tokens
    return token_BM


def put(array_B: np.ndarray) -> jax.Array:
    """An array that every host has onto the mesh in force (`jax.set_mesh`), its rows shared out."""
    mesh = jax.sharding.get_mesh()
    if mesh.empty:
        return jax.numpy.asarray(array_B)
    return jax.make_array_from_callback(array_B.shape, batch_sharding(mesh), lambda i: array_B[i])


def whole(array: jax.Array) -> np.ndarray:
    """All of an array, on every host, wherever its parts are computed."""
    if not array.is_fully_addressable:
        mesh = jax.sharding.get_mesh()
        array = jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, PartitionSpec()))(array)
    return np.asarray(array)
