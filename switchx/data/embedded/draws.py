"""The random numbers that TensorFlow draws from a seed, any of them by its number.

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3): ten
rounds turn a counter of four words of 32 bits into as many random ones. Words are in uint64 here,
where their products have room.
"""

import numpy as np

_WORD = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_GRAPH_SEED = np.uint64(87_654_321)  # stands for the global one that nobody set
_SEEDS = 2**31 - 1  # others are taken modulo this
_SCRAMBLE = np.array([0x3EC8F720, 0x02461E29], np.uint64)  # the key by which seeds are hashed


def philox(counter: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Four words for each counter: counter uint64 [..., 4], key uint64 [..., 2]."""
    a, b, c, d = np.moveaxis(counter, -1, 0)
    k, m = np.moveaxis(key, -1, 0)
    for _ in range(10):
        x, y = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b, c, d = (y >> _HALF) ^ b ^ k, y & _WORD, (x >> _HALF) ^ d ^ m, x & _WORD
        k, m = (k + _WEYL[0]) & _WORD, (m + _WEYL[1]) & _WORD
    return np.stack(np.broadcast_arrays(a, b, c, d), axis=-1)


def numbered(number_R: np.ndarray, seed: int) -> np.ndarray:
    """Those that a dataset of this seed draws one after the other, uint64 [R] below 2^32."""
    return _drawn(number_R, _GRAPH_SEED, np.uint64(seed % _SEEDS))


def shuffling(number_R: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Those by which `shuffle` of this seed chooses, in its so many-th pass, from 0."""
    first, second = numbered(np.arange(2 * epoch, 2 * epoch + 2), seed)
    return _drawn(number_R, first, second)


def _drawn(number_R: np.ndarray, key: np.uint64, high: np.uint64) -> np.ndarray:
    number_R = number_R.astype(np.uint64)
    counter_R4 = np.empty((len(number_R), 4), np.uint64)
    block_R = number_R >> np.uint64(2)
    counter_R4[:, 0], counter_R4[:, 1] = block_R & _WORD, block_R >> _HALF
    counter_R4[:, 2], counter_R4[:, 3] = high & _WORD, high >> _HALF
    words_R4 = philox(counter_R4, np.array([key & _WORD, key >> _HALF]))
    place_R1 = (number_R & np.uint64(3)).astype(np.int64)[:, None]
    return np.take_along_axis(words_R4, place_R1, axis=1)[:, 0]


def words(seed_R2: np.ndarray, count: int) -> np.ndarray:
    """What stateless functions draw of each seed, uint64 [R, count] below 2^32."""
    seed_R4 = np.stack([seed_R2 & _WORD, seed_R2 >> _HALF], axis=2).reshape(-1, 4)
    hashed_R4 = philox(seed_R4, _SCRAMBLE)
    blocks = -(-count // 4)
    counter_RN4 = np.zeros((len(seed_R2), blocks, 4), np.uint64)
    counter_RN4[:, :, 0] = np.arange(blocks)
    counter_RN4[:, :, 2:] = hashed_R4[:, None, 2:]
    word_RN4 = philox(counter_RN4, hashed_R4[:, None, :2])
    return word_RN4.reshape(len(seed_R2), 4 * blocks)[:, :count]


def split(seed_R2: np.ndarray, count: int) -> np.ndarray:
    """`stateless_split`: so many seeds of each, uint64 [R, count, 2]."""
    low_high = words(seed_R2, 4 * count).reshape(len(seed_R2), count, 2, 2)
    return low_high[..., 0] | (low_high[..., 1] << _HALF)


def fractions(seed_R2: np.ndarray, count: int) -> np.ndarray:
    """`stateless_uniform` in order: whole numbers [R, count] that compare as its floats do."""
    return words(seed_R2, count) & np.uint64(0x7FFFFF)
