"""Batches of the host onto the devices, and what an evaluation of parameters gives back."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import jax
import numpy as np

from switchx.model import Params
from switchx.sharding import batch_sharding
from switchx.training.state import Setup

HostBatch = Mapping[str, np.ndarray]
Result = tuple[dict[str, float], dict[str, Any]]  # scalars and per-layer arrays


class Evaluation(Protocol):
    """Evaluates parameters on the same batches every time, the whole and each task of it."""

    def __call__(self, params: Params) -> Result: ...

    def each_task(self, params: Params) -> Iterator[tuple[str, Result]]: ...


def put_batch(batch: HostBatch, setup: Setup) -> dict[str, jax.Array]:
    """A whole batch, which every host has, onto the devices: each takes its rows."""
    sharding = batch_sharding(setup.mesh)

    def put(value: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])

    return {name: put(value) for name, value in batch.items()}


def put_rows(rows: HostBatch, setup: Setup) -> dict[str, jax.Array]:
    """The rows of a batch that this host has, which are those of its devices, onto these."""
    sharding, B = batch_sharding(setup.mesh), setup.run.batch.batch_size
    return {
        name: jax.make_array_from_process_local_data(sharding, value, (B, *value.shape[1:]))
        for name, value in rows.items()
    }
