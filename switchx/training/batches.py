"""Batches: their shapes, and from the host onto the devices."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from switchx.data.taught.records import arrays_of
from switchx.sharding import batch_sharding
from switchx.training.config import BatchShape
from switchx.training.state import Setup

HostBatch = Mapping[str, np.ndarray]
Batch = dict[str, Any]


def abstract_batch(shape: BatchShape, setup: Setup) -> Batch:
    """The batch as shapes with shardings, for compiling before the first batch is there."""
    sharding = batch_sharding(setup.mesh)
    B, M, L = shape.batch_size, shape.input_length, shape.target_length
    of = lambda length, dtype: jax.ShapeDtypeStruct((B, length), dtype, sharding=sharding)  # noqa: E731
    batch = {"encoder_input_tokens": of(M, jnp.int32)}
    if shape.taught:
        V = setup.run.model.vocab_size
        for name, (classes, dtype) in arrays_of(shape.taught, V).items():
            array = (B, L or M, classes)
            batch[name] = jax.ShapeDtypeStruct(array, dtype, sharding=sharding)
    if shape.packed:
        batch["encoder_segment_ids"] = of(M, jnp.int32)
    if setup.run.model.encoder_alone:
        batch["encoder_target_tokens"] = of(M, jnp.int32)
        batch["encoder_loss_weights"] = of(M, jnp.float32)
        return batch
    batch["decoder_input_tokens"] = of(L, jnp.int32)
    batch["decoder_target_tokens"] = of(L, jnp.int32)
    batch["decoder_loss_weights"] = of(L, jnp.float32)
    if shape.packed:
        batch["decoder_segment_ids"] = of(L, jnp.int32)
    return batch


def put_batch(batch: HostBatch, setup: Setup) -> Batch:
    """A whole batch, which every host has, onto the devices: each takes its rows."""
    sharding = batch_sharding(setup.mesh)

    def put(value: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])

    return {name: put(value) for name, value in batch.items()}


def put_rows(rows: HostBatch, setup: Setup) -> Batch:
    """The rows of a batch that this host has, which are those of its devices, onto these."""
    sharding, B = batch_sharding(setup.mesh), setup.run.batch.batch_size
    return {
        name: jax.make_array_from_process_local_data(sharding, value, (B, *value.shape[1:]))
        for name, value in rows.items()
    }
