"""A tiny run with a stream that a test can drive, break and move."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from switchx.evaluation import Evaluator
from switchx.model import Model, ModelConfig, SwitchConfig
from switchx.sharding import MeshConfig, make_mesh
from switchx.training import BatchShape, Feed, OptimizerConfig, RunConfig, TrainerConfig
from switchx.training.checkpoints import Checkpoints, Restored, restore_params
from switchx.training.host_rows import HostShards
from switchx.training.run_reader import metric_rows
from switchx.training.start import FRESH
from switchx.training.state import Setup

BATCH, INPUTS, TARGETS, VOCAB = 16, 16, 8, 256

# Experts in the one layer of each stack: every kind of layer more compiles as long again.
SWITCH = SwitchConfig(
    num_experts=8, every=1, min_capacity=1, encoder_group_size=INPUTS, decoder_group_size=TARGETS
)
TWO_KINDS = {"num_layers": 2, "switch": dataclasses.replace(SWITCH, every=2)}
# What makes the tiny run tinier, for tests of many processes and, with `one_device`, many runs.
NARROW = {"d_model": 32, "d_ff": 32, "num_heads": 4}
SMALL = {"mesh": MeshConfig(1, 1, 1), "d_model": 32, "d_ff": 32, "num_heads": 2, "switch": None}


def shape(shards: int = 1) -> BatchShape:
    """Of a batch that is read in so many parts."""
    return BatchShape(BATCH, INPUTS, TARGETS, shards)


def run_config(**changes: Any) -> RunConfig:
    """8 experts, jitter on, widths of 128 so that Adafactor factors.

    No dropout, a third of the compiled program: `test_mesh` and `test_loop` have it.

    Changes go to the part that has a field of that name; `model`, `mesh` ... replace a part.
    """
    model = ModelConfig(
        vocab_size=VOCAB,
        d_model=128,
        d_ff=128,
        d_kv=16,
        num_heads=8,
        num_layers=1,
        dropout_rate=0.0,
        init_scale=0.1,
        dtype="float32",
        switch=SWITCH,
    )
    run = RunConfig(
        model=model,
        batch=shape(),
        eval_batch=shape(),
        trainer=TrainerConfig(
            train_steps=6, log_period=1, eval_period=100, checkpoint_period=2, keep_checkpoints=10
        ),
        optimizer=OptimizerConfig(warmup_steps=100),
        mesh=MeshConfig(),
    )
    run = _changed(run, changes)
    for part in ("model", "trainer", "optimizer", "mesh"):
        run = dataclasses.replace(run, **{part: _changed(getattr(run, part), changes)})
    assert not changes
    return run


def _changed(config: Any, changes: dict[str, Any]) -> Any:
    """With those of the changes that are its fields, which are taken out of them."""
    names = {field.name for field in dataclasses.fields(config)} & set(changes)
    return dataclasses.replace(config, **{name: changes.pop(name) for name in names})


def batch(number: int) -> dict[str, np.ndarray]:
    """Random tokens with padding: a pure function of the number. Targets repeat the inputs."""
    rng = np.random.default_rng(number)
    inputs = rng.integers(1, VOCAB, (BATCH, INPUTS)).astype(np.int32)
    inputs *= np.arange(INPUTS) < rng.integers(INPUTS // 2, INPUTS + 1, (BATCH, 1))
    targets = inputs[:, :TARGETS] * (np.arange(TARGETS) < rng.integers(4, TARGETS + 1, (BATCH, 1)))
    shifted = np.pad(targets[:, :-1], ((0, 0), (1, 0)))
    return {
        "encoder_input_tokens": inputs,
        "decoder_input_tokens": shifted.astype(np.int32),
        "decoder_target_tokens": targets.astype(np.int32),
        "decoder_loss_weights": (targets > 0).astype(np.float32),
    }


def packed_batch(number: int) -> dict[str, np.ndarray]:
    """The batch of this number, each row cut into two examples at places of its own."""
    found, rng = batch(number), np.random.default_rng(number)
    cut_B1, target_cut_B1 = rng.integers(2, 8, (BATCH, 1)), rng.integers(1, 4, (BATCH, 1))
    inputs, targets = found["encoder_input_tokens"], found["decoder_target_tokens"]
    at_cut = np.arange(TARGETS) == target_cut_B1
    segment = np.where(np.arange(INPUTS) < cut_B1, 1, 2) * (inputs > 0)
    target_segment = np.where(np.arange(TARGETS) < target_cut_B1, 1, 2) * (targets > 0)
    return {
        **found,
        "decoder_input_tokens": np.where(at_cut, 0, found["decoder_input_tokens"]),
        "encoder_segment_ids": segment.astype(np.int32),
        "decoder_segment_ids": target_segment.astype(np.int32),
    }


class Stream:
    """Some shards' rows of batches 0, 1, 2, ...; its position is the number of the next."""

    count = 1  # shards in all

    def __init__(self, shards: Sequence[int] = (0,)) -> None:
        self.shards, self.number = shards, 0

    def __next__(self) -> dict[str, np.ndarray]:
        self.number += 1
        rows = BATCH // self.count
        own = [slice(n * rows, (n + 1) * rows) for n in self.shards]
        return {
            name: np.concatenate([value[part] for part in own])
            for name, value in batch(self.number - 1).items()
        }

    def skip(self, examples: int) -> None:
        self.number += examples // BATCH

    def state(self) -> dict[int, bytes]:
        return {shard: str(self.number).encode() for shard in self.shards}

    def restore(self, states: Mapping[int, bytes]) -> None:
        (self.number,) = {int(states[shard]) for shard in self.shards}

    def report(self) -> dict[str, int]:
        return {}


def evaluation(setup: Setup) -> Evaluator:
    """What `train` evaluates with."""
    return Evaluator(setup, eval_batches)


def feed(stream: Any = Stream, vocabulary: str = "v1") -> Feed:
    """What `train` is given."""
    return Feed(stream, evaluation, lambda: vocabulary)


def checkpoints_of(directory: Any, setup: Setup) -> Checkpoints:
    """Of a run of this setup, as its next process opens them."""
    return Checkpoints(directory, setup, HostShards.of(setup.mesh, setup.run.batch), FRESH)


def restored(directory: Any, setup: Setup) -> Restored:
    """What that process goes on from."""
    with contextlib.closing(checkpoints_of(directory, setup)) as checkpoints:
        return checkpoints.newest_or_start()


def eval_batches() -> Iterator[dict[str, np.ndarray]]:
    yield from (batch(10**6 + i) for i in range(2))


def params_of(directory: Any, run: RunConfig) -> Any:
    """Of the newest checkpoint, on the host."""
    found, step = restore_params(Model.of(run.model), directory, make_mesh(run.mesh))
    assert step == run.trainer.train_steps
    return jax.device_get(found)


def train_losses(directory: Any) -> dict[int, float]:
    """By step, in the order of the file."""
    return {row["step"]: row["loss"] for row in metric_rows(directory) if row["split"] == "train"}


def assert_same_end(directory: Any, other: Any, run: RunConfig) -> None:
    """Bitwise the same parameters and the same training losses at every step."""
    ours, theirs = params_of(directory, run), params_of(other, run)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert train_losses(directory) == train_losses(other)
    assert list(train_losses(directory)) == list(range(1, run.trainer.train_steps + 1))
