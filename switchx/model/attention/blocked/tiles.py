"""How attention is cut into programs and blocks."""

import dataclasses

import jax

LANES = 128
# The longest block, and the block where bias and rows would not fit into a chip's fast memory with
# that: of sequences of more than _LONG, or of no multiple of it. None are longer than _LONGEST.
_BLOCK, _SMALL, _LONG, _LONGEST = 512, 256, 2048, 4096


def fits(H: int, L: int, M: int, K: int, biased: bool) -> bool:
    """Whether a device's H heads of width K, L queries and M keys can be cut up."""
    full_vectors = H % (LANES // K) == 0 if LANES % K == 0 else K % LANES == 0
    cut = all(x % _block(x) == 0 and x <= _LONGEST for x in (L, M))
    return full_vectors and cut and (L == M or not biased)


def _block(length: int) -> int:
    if length <= _BLOCK:
        return length
    return _BLOCK if length <= _LONG and length % _BLOCK == 0 else _SMALL


@dataclasses.dataclass(frozen=True)
class Tiles:
    """A device's share of attention, and its parts.

    Attributes:
      H, L, M, K: heads, queries, keys, width of a head.
      n: heads of a program: as many as fill the lanes of a vector.
      l, m: queries and keys of a block.
    """

    H: int
    L: int
    M: int
    K: int
    n: int
    l: int
    m: int

    @classmethod
    def of(cls, query_BLHK: jax.Array, key_BMHK: jax.Array) -> "Tiles":
        (_, L, H, K), M = query_BLHK.shape, key_BMHK.shape[1]
        return cls(H, L, M, K, max(1, LANES // K), _block(L), _block(M))

    @property
    def programs(self) -> int:
        """Groups of heads."""
        return self.H // self.n

    @property
    def width(self) -> int:
        """Of a program's heads."""
        return self.n * self.K

    @property
    def query_blocks(self) -> int:
        return self.L // self.l

    @property
    def key_blocks(self) -> int:
        return self.M // self.m
