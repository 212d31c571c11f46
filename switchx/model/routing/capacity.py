"""How many slots experts have: as many each, or by width, or shared by the experts of a pool."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike


@dataclasses.dataclass(frozen=True)
class Slots:
    """Slots per expert and group of tokens; experts of one width have as many and lie together.

    Attributes:
      by_width: of each width, in the order of the experts' numbers, how many experts there are
        and the slots of each.
    """

    by_width: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, capacity: "int | Slots", experts: Sequence[int]) -> "Slots":
        """Those of a layer with so many experts of each width; a number is for each of them."""
        if isinstance(capacity, int):
            return cls(tuple((number, capacity) for number in experts))
        assert [number for number, _ in capacity.by_width] == [*experts]
        return capacity

    def of_groups(self, groups: int) -> "Slots":
        """Those of so many groups together, an expert's in the first group before the second's."""
        return Slots(tuple((experts, groups * slots) for experts, slots in self.by_width))

    @property
    def total(self) -> int:
        """Slots of all experts."""
        return sum(experts * slots for experts, slots in self.by_width)

    def room(self, expert: ArrayLike) -> jax.Array:
        """int32, the slots of each of these experts."""
        number = jnp.asarray(expert, jnp.int32)
        of_width = [jnp.full_like(number, slots) for _, slots in self.by_width]
        return self._chosen(number, of_width)

    def numbered(self, expert: jax.Array, slot: jax.Array) -> jax.Array:
        """int32, the number of an expert's slot among all experts' slots, expert by expert."""
        of_width, first, before = [], 0, 0
        for experts, slots in self.by_width:
            own = (expert - first if first else expert) * slots + slot
            of_width.append(own + before if before else own)
            first, before = first + experts, before + experts * slots
        return self._chosen(expert, of_width)

    def _chosen(self, expert: jax.Array, of_width: Sequence[jax.Array]) -> jax.Array:
        """For each expert the entry of its width, of one entry for each width."""
        chosen, first = of_width[0], 0
        for (experts, _), later in zip(self.by_width, of_width[1:], strict=False):
            first += experts
            chosen = jnp.where(expert >= first, later, chosen)
        return chosen


@dataclasses.dataclass(frozen=True)
class Pools:
    """Slots per pool of experts and group of tokens, which the experts of the pool share.

    Attributes:
      experts: how many there are of each width, in the order of the experts' numbers. Each pool
        has the same share of each width, the first the first of them.
      number: of pools.
      slots: of each.
    """

    experts: tuple[int, ...]
    number: int
    slots: int

    @property
    def total(self) -> int:
        """Slots of all pools."""
        return self.number * self.slots

    def room(self, expert: ArrayLike) -> jax.Array:
        """int32, the slots that each of these experts has a share in."""
        return jnp.full_like(expert, self.slots, dtype=jnp.int32)

    def of_expert(self) -> np.ndarray:
        """int32 [E], the pool of each."""
        each = [np.arange(number) // (number // self.number) for number in self.experts]
        return np.concatenate(each).astype(np.int32)


# Per expert, or pool of experts, and group of tokens; a number is that of all experts.
Capacity = int | Slots | Pools


def queues(capacity: Capacity, expert: jax.Array, num_experts: int) -> tuple[jax.Array, int]:
    """Where choices of these experts queue for slots, and how many queues there are."""
    if not isinstance(capacity, Pools):
        return expert, num_experts
    if len(capacity.experts) == 1:
        return expert // (num_experts // capacity.number), capacity.number
    return jnp.asarray(capacity.of_expert())[expert], capacity.number


def room(capacity: Capacity, expert: ArrayLike) -> jax.Array | int:
    """How many slots each of these experts has."""
    return capacity if isinstance(capacity, int) else capacity.room(expert)
