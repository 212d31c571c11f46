"""Which layers of a stack have experts, and how the stack is cut into blocks that repeat."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import NamedTuple

# Which layers have experts: every n-th, or these, counted from 0; () is none.
Sparse = int | tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Equal blocks, one behind the other, which run as one loop.

    Attributes:
      name: of their parameters' tree within the stack's: "blocks", then "blocks_1", "blocks_2".
      sparse: of each layer of a block, whether it has experts.
      num_blocks: how often the block repeats.
      first_layer, first_block: how many of the stack come before.
    """

    name: str
    sparse: tuple[bool, ...]
    num_blocks: int
    first_layer: int = 0
    first_block: int = 0

    @property
    def period(self) -> int:
        """Layers in one block."""
        return len(self.sparse)

    @property
    def num_layers(self) -> int:
        return self.period * self.num_blocks


class Place(NamedTuple):
    """Where a layer's parameters are in its stack's: in [blocks][f"layer_{layer}"], at [block]."""

    blocks: str
    layer: int
    block: int


@dataclasses.dataclass(frozen=True)
class StackShape:
    """The layers of one stack.

    Attributes:
      num_layers: of all kinds.
      sparse: which have experts; two ways to say the same are the same here (see `of`).
    """

    num_layers: int
    sparse: Sparse

    @classmethod
    def of(cls, num_layers: int, sparse: Sparse) -> "StackShape":
        """Every n-th layer is said by n where that is possible, and no layer by ()."""
        if isinstance(sparse, int):
            return cls(num_layers, sparse if sparse <= num_layers else ())
        n = sparse[0] + 1 if sparse else 0
        regular = sparse and sparse == tuple(range(n - 1, num_layers, n))
        return cls(num_layers, n if regular else sparse)

    @property
    def sparse_layers(self) -> range | tuple[int, ...]:
        """The numbers of the layers with experts."""
        if isinstance(self.sparse, int):
            return range(self.sparse - 1, self.num_layers, self.sparse)
        return self.sparse

    @property
    def num_sparse(self) -> int:
        return len(self.sparse_layers)

    @functools.cached_property
    def blocks(self) -> tuple[Blocks, ...]:
        """All layers, cut into as few rows of equal blocks as it takes.

        With experts in every n-th layer a block has n layers, and what is left of the depth are
        dense layers, a row of their own.
        """
        return tuple(_numbered(self._rows()))

    def place(self, layer: int) -> Place:
        """Where the parameters of a layer are."""
        row = next(row for row in reversed(self.blocks) if row.first_layer <= layer)
        block, within = divmod(layer - row.first_layer, row.period)
        return Place(row.name, within, block)

    def layers_of(self, blocks: str, layer: str) -> range:
        """The numbers of the layers whose parameters are stacked in parameters[blocks][layer].

        Empty where there are no such parameters.
        """
        for row in self.blocks:
            within = int(layer.removeprefix("layer_"))
            if row.name == blocks and within < row.period:
                first, end = row.first_layer, row.first_layer + row.num_layers
                return range(first + within, end, row.period)
        return range(0)

    def _rows(self) -> list[tuple[tuple[bool, ...], int]]:
        """Of each row the block, as `Blocks.sparse`, and how often it repeats."""
        if not self.num_layers:
            return []
        if not self.sparse:
            return [((False,), self.num_layers)]
        if isinstance(self.sparse, int):
            repeats, left = divmod(self.num_layers, self.sparse)
            whole = ((False,) * (self.sparse - 1) + (True,), repeats)
            return [whole, ((False,), left)] if left else [whole]
        return _fewest_layers(tuple(n in self.sparse for n in range(self.num_layers)))


def _numbered(rows: list[tuple[tuple[bool, ...], int]]) -> Iterator[Blocks]:
    layer = block = 0
    for i, (sparse, repeats) in enumerate(rows):
        yield Blocks(f"blocks_{i}" if i else "blocks", sparse, repeats, layer, block)
        layer, block = layer + len(sparse) * repeats, block + repeats


def _fewest_layers(sparse: tuple[bool, ...]) -> list[tuple[tuple[bool, ...], int]]:
    """The cut with the fewest layers to compile, and of several with as few the fewest rows.

    Of each row the layers of one block are compiled. Shortest paths over the ends of rows.
    """
    best: dict[int, tuple[int, int, list]] = {0: (0, 0, [])}
    for start in range(len(sparse)):
        layers, rows, cut = best[start]
        for period in range(1, len(sparse) - start + 1):
            block = sparse[start : start + period]
            end, repeats = start + period, 1
            while True:
                found = (layers + period, rows + 1, [*cut, (block, repeats)])
                best[end] = min(best.get(end, found), found)
                if sparse[end : end + period] != block:
                    break
                end, repeats = end + period, repeats + 1
    return best[len(sparse)][2]
