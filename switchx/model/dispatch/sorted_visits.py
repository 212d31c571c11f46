"""Which tiles of sorted rows which expert has rows in: what kernels of sorted rows go through."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Visits(NamedTuple):
    """A tile that an expert's rows end in is visited once for each expert that has rows in it.

    Attributes:
      tile_V: its number. Visits that are not needed are the last, to the last tile.
      start_V, end_V: the rows that are the visit's own; none where end <= start.
      expert_V: whose they are; E for rows that no expert has.
    """

    tile_V: jax.Array
    start_V: jax.Array
    end_V: jax.Array
    expert_V: jax.Array

    @classmethod
    def to_every_row(cls, size_E: jax.Array, R: int, rows: int) -> "Visits":
        """R rows in tiles of `rows`: each is of one visit, those that no expert has too."""
        size_e = jnp.append(size_E, R - jnp.sum(size_E)).astype(jnp.int32)
        return cls._of(size_e, jnp.zeros_like(size_e), R, rows)

    @classmethod
    def to_every_expert(cls, size_E: jax.Array, R: int, rows: int) -> "Visits":
        """Rows that an expert has alone; an expert without any is visited once."""
        size_E = size_E.astype(jnp.int32)
        return cls._of(size_E, jnp.ones_like(size_E), R, rows)

    @classmethod
    def _of(cls, size_e: jax.Array, least_e: jax.Array, R: int, rows: int) -> "Visits":
        """`least_e`: visits to an expert without rows."""
        e, tiles = size_e.shape[0], -(-R // rows)
        end_e = jnp.cumsum(size_e)
        start_e = end_e - size_e
        visits_e = jnp.where(size_e > 0, -(-end_e // rows) - start_e // rows, least_e)
        last_e = jnp.cumsum(visits_e)
        number_V = jnp.arange(tiles + e, dtype=jnp.int32)
        # Counted by compare and sum: a search would be a loop.
        expert_V = jnp.sum(last_e[None, :] <= number_V[:, None], axis=1, dtype=jnp.int32)
        needed_V = expert_V < e
        expert_V = jnp.minimum(expert_V, e - 1)
        tile_V = start_e[expert_V] // rows + number_V - (last_e - visits_e)[expert_V]
        start_V = jnp.maximum(tile_V * rows, start_e[expert_V])
        end_V = jnp.minimum((tile_V + 1) * rows, end_e[expert_V])
        return cls(
            jnp.where(needed_V, jnp.minimum(tile_V, tiles - 1), tiles - 1),
            start_V,
            jnp.where(needed_V, end_V, 0),
            expert_V,
        )
