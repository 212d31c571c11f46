"""The groups that flaxformer makes of any batch, for models that T5X trained.

Where the tokens of a batch are no multiple of the experts, flaxformer adds zeros to the batch:
whole sequences, or as much to each of them, whichever is less. It makes as few groups as it can of
at most the configured size, in a multiple of the experts. Padding has zeros in the place of its
activations and is routed like any token, the added zeros alike: they choose the first expert, take
its slots, and count in every figure. Capacities are rounded to the nearest.

On several devices flaxformer multiplies the experts by their copies on the mesh, so that its
routing changes with the mesh; this is that of one copy, on any.
"""

import dataclasses
import itertools
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class FlaxformerGroups:
    """How a batch is cut.

    Attributes:
      rows, length: of the batch, the added zeros included.
      size: tokens per group.
    """

    rows: int
    length: int
    size: int

    @classmethod
    def of(cls, B: int, L: int, num_experts: int, largest: int) -> "FlaxformerGroups":
        """Of B sequences of L tokens, in groups of at most `largest`."""
        more_rows = _least(lambda n: (B + n) * L % num_experts == 0)
        more_length = _least(lambda n: B * (L + n) % num_experts == 0)
        if more_length * B > more_rows * L:
            rows, length = B + more_rows, L
        else:
            rows, length = B, L + more_length
        tokens = rows * length
        least = max(tokens // largest, num_experts)
        groups = least + _least(
            lambda n: tokens % (least + n) == 0 and (least + n) % num_experts == 0
        )
        return cls(rows, length, tokens // groups)


def pads(B: int, L: int, num_experts: int) -> bool:
    """Whether flaxformer adds zeros to B sequences of L tokens."""
    return B * L % num_experts != 0


def capacity(factor: float, size: int, num_experts: int, least: int) -> int:
    """Slots per expert and group: an equal share of the tokens, to the nearest, halves to even."""
    return max(round(factor * size / num_experts), least)


def _least(holds: Callable[[int], bool]) -> int:
    """The least whole number of which it holds."""
    return next(n for n in itertools.count() if holds(n))
