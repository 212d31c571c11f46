"""Small models and random inputs that several tests share."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from switchx.model import Model, ModelConfig, Noise, SwitchConfig
from switchx.model.dispatch import DISPATCHERS
from switchx.model.experts import experts_of
from switchx.model.routing import Capacity, Pools, Slots
from switchx.model.switch_layer import Grouping, SwitchLayer


def switch_config(**changes: Any) -> SwitchConfig:
    """Four experts, groups of 16 tokens in both stacks, capacities small enough to drop some."""
    settings: dict[str, Any] = dict(
        num_experts=4, min_capacity=1, encoder_group_size=16, decoder_group_size=16
    )
    return SwitchConfig(**{**settings, **changes})


def tiny_config(**changes: Any) -> ModelConfig:
    """A switch model of 2 + 2 layers that compiles in a moment. `switch=None` makes it dense."""
    settings: dict[str, Any] = dict(
        vocab_size=64, d_model=16, d_ff=32, d_kv=4, num_heads=4, num_layers=2, dtype="float32"
    )
    return ModelConfig(**{**settings, "switch": switch_config(), **changes})


def sparse_config(num_layers: int = 1, **changes: Any) -> ModelConfig:
    """Experts in every layer: one kind of layer, which compiles in half the time of two."""
    return tiny_config(num_layers=num_layers, switch=switch_config(every=1, **changes))


def with_switch(config: ModelConfig, **changes: Any) -> ModelConfig:
    """The same model with other settings of its switch layers."""
    assert config.switch is not None
    return dataclasses.replace(config, switch=dataclasses.replace(config.switch, **changes))


def switch_layer(config: ModelConfig, seed: int) -> SwitchLayer:
    """A feed-forward layer with experts."""
    assert config.switch is not None
    rngs = nnx.Rngs(params=seed)
    return SwitchLayer(config, config.switch, experts_of(config, rngs), rngs)


def grouping(
    config: ModelConfig, size: int, capacity: int | Slots | None, causal: bool = False
) -> Grouping:
    """Groups of another size and capacity than the configuration's; none is dropless."""
    assert config.switch is not None
    dispatcher = DISPATCHERS["ragged" if capacity is None else config.switch.dispatcher]
    room = with_room(config.switch, capacity)
    return Grouping(size, room, config.switch.policy(causal), dispatcher)


def with_room(config: SwitchConfig, slots: int | Slots | None) -> Capacity | None:
    """A capacity of so many slots for each expert, or for each pool of them."""
    if not isinstance(slots, int) or config.ragged_pools is None:
        return slots
    numbers = tuple(number for number, _ in config.expert_widths or ((config.num_experts, 0),))
    return Pools(numbers, config.ragged_pools, slots)


def init(config: ModelConfig, seed: int = 0) -> dict[str, Any]:
    """Parameters of a model, in a dict of the caller's own."""
    return jax.tree.map(lambda param: param, _init(config, seed))


@functools.cache
def _init(config: ModelConfig, seed: int) -> dict[str, Any]:
    return jax.jit(Model.of(config).init)(jax.random.key(seed))


def random_mask(rng: np.random.Generator, rows: int, length: int, least: int = 1) -> np.ndarray:
    """bool [rows, length]: each row real up to a random length of at least `least`."""
    lengths = rng.integers(least, length + 1, rows)
    return np.arange(length) < lengths[:, None]


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a Transformer is called with."""

    encoder_token_BM: np.ndarray
    decoder_token_BL: np.ndarray
    decoder_mask_BL: np.ndarray

    def rows(self, which: slice) -> "Inputs":
        return Inputs(*(getattr(self, f.name)[which] for f in dataclasses.fields(self)))

    def __iter__(self) -> Any:
        return iter((self.encoder_token_BM, self.decoder_token_BL, self.decoder_mask_BL))


def random_inputs(
    seed: int = 0, batch: int = 4, input_length: int = 16, target_length: int = 8, vocab: int = 64
) -> Inputs:
    """Random tokens with padding at the rows' ends; the decoder's rows begin with token 0."""
    rng = np.random.default_rng(seed)
    encoder = rng.integers(1, vocab, (batch, input_length)).astype(np.int32)
    encoder *= random_mask(rng, batch, input_length, input_length // 2)
    decoder = rng.integers(1, vocab, (batch, target_length)).astype(np.int32)
    decoder[:, 0] = 0
    return Inputs(encoder, decoder, random_mask(rng, batch, target_length, target_length // 2))


def noise(batch: int, seed: int = 0, step: int = 0, first_row: int = 0) -> Noise:
    """The keys of rows first_row, first_row + 1, ... of the global batch."""
    return Noise.for_rows(seed, jnp.uint32(step), jnp.arange(first_row, first_row + batch))


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a command ended with."""

    status: int
    out: str
    err: str


@dataclasses.dataclass(frozen=True)
class Trained:
    """A folder in which `switchx train` was called, and what it showed."""

    folder: Path
    outcome: Outcome

    @property
    def run(self) -> Path:
        return self.folder / "runs/quickstart"
