"""Which rows of a batch this host's devices hold, and so which shards of the data it reads."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from switchx.errors import UserError
from switchx.sharding import batch_sharding
from switchx.training.config import BatchShape


@dataclasses.dataclass(frozen=True)
class HostShards:
    """Shards of the data by number, of `count` in all.

    Attributes:
      read: those whose rows this host's devices hold, in the order of the rows.
      kept: those whose position this host saves. Hosts that share rows, as those of one `model`
        axis do, read the same shards; the first of them saves.
    """

    read: tuple[int, ...]
    kept: tuple[int, ...]
    count: int

    @classmethod
    def none(cls) -> "HostShards":
        """Of what was not trained here yet, so that no data was read for it."""
        return cls((), (), 0)

    @classmethod
    def of(cls, mesh: Mesh, batch: BatchShape, process: int | None = None) -> "HostShards":
        """Of a process, by default this one.

        Raises:
          UserError: a host would need a part of a shard only.
        """
        process = jax.process_index() if process is None else process
        rows = _rows_of_processes(mesh, batch)
        per_shard = batch.batch_size // batch.shards
        readers = [
            sorted(p for p, own in rows.items() if not own.isdisjoint(_shard(number, per_shard)))
            for number in range(batch.shards)
        ]
        read = tuple(n for n, processes in enumerate(readers) if process in processes)
        if len(rows[process]) != len(read) * per_shard:
            raise UserError(
                f"DATA_SHARDS={batch.shards} cuts BATCH_SIZE={batch.batch_size} into parts of "
                f"{per_shard} rows, but each host's devices hold {len(rows[process])} of them: "
                f"use a multiple of {batch.batch_size // len(rows[process])}, so that each host "
                "reads its own share."
            )
        kept = tuple(n for n in read if readers[n][0] == process)
        return cls(read, kept, batch.shards)


def _rows_of_processes(mesh: Mesh, batch: BatchShape) -> dict[int, set[int]]:
    rows: dict[int, set[int]] = {}
    places: Mapping[Any, Any] = batch_sharding(mesh).devices_indices_map((batch.batch_size,))
    for device, index in places.items():
        own = range(*index[0].indices(batch.batch_size))
        rows.setdefault(device.process_index, set()).update(own)
    return rows


def _shard(number: int, per_shard: int) -> range:
    return range(number * per_shard, (number + 1) * per_shard)
