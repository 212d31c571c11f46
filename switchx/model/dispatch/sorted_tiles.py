"""How the products of sorted rows are cut into tiles, so that a TPU's matrix units seldom wait.

The tiles are those that take the fewest cycles by a count, of experts that have equally many
rows: while a program multiplies, what the next one reads and the last one wrote passes through
memory, and whichever takes longer is its time.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator

# What a kernel may have of the fast memory: a quarter of v5e's, half of v5p's. And how much of it
# its tiles may take, which are there twice.
FAST_MEMORY, _TILES = 32 << 20, 28 << 20
# Rows that are multiplied at a time, and of a tile, unless there are fewer.
_BLOCK, _ROWS = 128, (512, 256, 128)
LANES = 128
# Of v5e: multiplications and bytes of memory in a cycle. And what a program takes besides.
_PRODUCTS, _BYTES, _BEGIN = 4 * 128 * 128, 546, 150


@dataclasses.dataclass(frozen=True)
class Tiles:
    """How one product is cut.

    Attributes:
      rows, inputs, outputs: of a tile; all inputs that there are, where they are summed over.
      block: rows that are multiplied at a time.
      parallel: dimensions of the grid beside that of the visits.
      cycles: of an expert, by the count.
    """

    rows: int
    inputs: int
    outputs: int
    block: int
    parallel: int
    cycles: float


@functools.cache
def of_rows(
    R: int, share: int, K: int, N: int, itemsize: int, kernel_itemsize: int, masked: bool = False
) -> Tiles | None:
    """For [R, K], `share` rows an expert, times kernels [E, K, N]; None if none fit.

    Args:
      kernel_itemsize: where that is another, a tile of the kernel is there in the rows' dtype too.
      masked: where [R, N] is read beside what is written.
    """

    def tiles() -> Iterator[Tiles]:
        for (rows, block), (n, outputs) in itertools.product(_rows(R), _parts(N)):
            x, y = rows * K * itemsize, rows * outputs * itemsize * (2 if masked else 1)
            kernel = K * outputs * kernel_itemsize
            rounded = K * outputs * itemsize if kernel_itemsize != itemsize else 0
            if 2 * (x + kernel + y) + rounded <= _TILES:
                visits = share / rows + 1
                multiplied = (share + block) * _whole(K) * outputs
                cycles = _cycles(visits, multiplied, x + y, kernel)
                yield Tiles(rows, K, outputs, block, 1, n * cycles)

    return min(tiles(), key=lambda t: t.cycles, default=None)


@functools.cache
def of_outer(
    R: int, share: int, D: int, F: int, itemsize: int, kernel_itemsize: int
) -> Tiles | None:
    """For x^T dy of [R, D] and [R, F] for each expert; None if none fit."""

    def tiles() -> Iterator[Tiles]:
        for (rows, block), (d, inputs), (f, outputs) in itertools.product(
            _rows(R), _parts(D), _parts(F)
        ):
            x, dy, sums = (a * b for a, b in ((rows, inputs), (rows, outputs), (inputs, outputs)))
            there = 2 * (x + dy) * itemsize + 2 * sums * kernel_itemsize
            if there + 4 * sums <= _TILES:
                visits = share / rows + 1
                multiplied = (share + block) * inputs * outputs
                cycles = _cycles(visits, multiplied, (x + dy) * itemsize, sums * kernel_itemsize)
                yield Tiles(rows, inputs, outputs, block, 2, d * f * cycles)

    return min(tiles(), key=lambda t: t.cycles, default=None)


def _cycles(visits: float, multiplied: float, each: int, once: int) -> float:
    """Cycles of an expert's visits, each of which moves bytes, and one of them `once` more."""
    products = multiplied / visits / _PRODUCTS + _BEGIN
    others = (visits - 1) * max(products, each / _BYTES)
    return others + max(products, (each + once) / _BYTES)


def _rows(R: int) -> list[tuple[int, int]]:
    """Rows of a tile and of a block; of whole vectors, in any dtype."""
    most = -(-R // 32) * 32
    if most <= _BLOCK:
        return [(most, most)]
    return [(rows, _BLOCK) for rows in _ROWS if rows < R + _BLOCK]


def _parts(N: int) -> list[tuple[int, int]]:
    """In how many parts N can be cut, and how large they then are."""
    return [(n, N if n == 1 else _whole(-(-N // n))) for n in range(1, -(-N // LANES) + 1)]


def _whole(N: int) -> int:
    """Vectors' lanes are always all there."""
    return -(-N // LANES) * LANES
