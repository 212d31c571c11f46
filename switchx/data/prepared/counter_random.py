"""Random numbers that are functions of a key and a counter: nothing is carried from draw to draw.

The generator is SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
generators", figure 15), whose i-th number needs none of those before it. Written here because the
order of the data rests on it: a library's generator may change with its version.
"""

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ROUNDS = 6


def mix(x: np.ndarray) -> np.ndarray:
    """A bijection of uint64 that leaves no visible trace of its argument. Any shape."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def key_of(*parts: int | np.ndarray) -> np.ndarray:
    """uint64 keys, one-dimensional, from whole numbers or arrays of them that broadcast.

    Other parts, or the same in another order, give another key.
    """
    key = np.zeros(1, np.uint64)
    for part in parts:
        key = mix((key + _GOLDEN) ^ np.asarray(part).astype(np.uint64))
    return key


def bits(key_R: np.ndarray, n: int) -> np.ndarray:
    """The first n numbers of each key's stream, uint64 [R, n]."""
    counter_n = np.arange(1, n + 1, dtype=np.uint64) * _GOLDEN
    return mix(key_R[:, None] + counter_n)


def permute(index_R: np.ndarray, length: int, key_R: np.ndarray) -> np.ndarray:
    """Where a pseudorandom permutation of range(length) takes each index, int64 [R].

    A balanced Feistel network over the next power of 4, walked along its cycle until it is back
    in range (Black and Rogaway 2002, "Ciphers with arbitrary finite domains", method 2).

    Args:
      index_R: whole numbers from 0 to length - 1.
      key_R: uint64, which permutation; broadcasts against index_R.
    """
    half = np.uint64(max(1, -(-(length - 1).bit_length() // 2)))
    key_R = np.broadcast_to(key_R, index_R.shape)
    found_R = _feistel(index_R.astype(np.uint64), half, key_R)
    while (outside_R := found_R >= np.uint64(length)).any():
        found_R[outside_R] = _feistel(found_R[outside_R], half, key_R[outside_R])
    return found_R.astype(np.int64)


def _feistel(x_R: np.ndarray, half: np.uint64, key_R: np.ndarray) -> np.ndarray:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = x_R >> half, x_R & mask
    for number in range(_ROUNDS):
        left, right = right, left ^ (key_of(number, key_R, right) & mask)
    return (left << half) | right
