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

from switchx.model.switch_config import SwitchConfig


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


@dataclasses.dataclass(frozen=True)
class Filling:
    """What SwitchConfig.group_padding='flaxformer' needs to know; `factor`: None drops nothing."""

    num_experts: int
    factor: float | None
    min_capacity: int

    @classmethod
    def of(cls, config: SwitchConfig, train: bool) -> "Filling":
        factor = config.train_capacity_factor if train else config.eval_capacity_factor
        return cls(config.num_experts, None if config.dropless else factor, config.min_capacity)

    def capacity(self, size: int) -> int | None:
        """Slots per expert of a group of so many tokens: an equal share, halves to even."""
        if self.factor is None:
            return None
        share = round(self.factor * size / self.num_experts)
        return min(size, max(share, self.min_capacity))


def pads(B: int, L: int, num_experts: int) -> bool:
    """Whether flaxformer adds zeros to B sequences of L tokens."""
    return B * L % num_experts != 0


def _least(holds: Callable[[int], bool]) -> int:
    """The least whole number of which it holds."""
    return next(n for n in itertools.count() if holds(n))
