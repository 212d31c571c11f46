"""A model whose answers matter little and vary much, and a vocabulary of characters."""

import dataclasses
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from switchx.model import NO_NOISE, Model, ModelConfig
from tests.helpers import init, switch_config, tiny_config

VOCAB = 12
EOS = 1
LENGTH = 8  # of inputs and answers


def answering_config(switch: bool = True, length: int = LENGTH, **changes: Any) -> ModelConfig:
    """A tiny model that drops nothing in evaluation either, so decoding must agree with it.

    Experts in each of its two layers: one kind of layer is one to compile.
    """
    sparse = switch_config(
        every=1, encoder_group_size=LENGTH, decoder_group_size=length, eval_capacity_factor=4.0
    )
    settings: dict[str, Any] = dict(vocab_size=VOCAB, tied_embeddings=False)
    return tiny_config(**{**settings, "switch": sparse if switch else None, **changes})


def lively(config: ModelConfig, seed: int = 0) -> dict[str, Any]:
    """Parameters whose answers vary with the input: with fresh ones the layers hardly matter.

    In a dict of the caller's own, who may change it.
    """
    return jax.tree.map(lambda p: p * 10.0 if p.ndim > 2 else p, init(config, seed))


@functools.partial(jax.jit, static_argnums=0)
def full_forward(
    config: ModelConfig, params: dict[str, Any], encoder_token_BM: Any, decoder_token_BL: Any
) -> jax.Array:
    """Logits [B, L, V] of the whole model at once: no cache, evaluation's routing."""
    mask_BL = jnp.ones(decoder_token_BL.shape, bool)
    transformer = Model.of(config).bind(params)
    return transformer(encoder_token_BM, decoder_token_BL, mask_BL, NO_NOISE).logits_BLV


def log_softmax(logits: Any) -> np.ndarray:
    logits = np.asarray(logits)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def inputs(rows: int, length: int = LENGTH, seed: int = 0) -> np.ndarray:
    """int32 [rows, length]: random tokens, padding at the rows' ends."""
    rng = np.random.default_rng(seed)
    token_BM = rng.integers(2, VOCAB, (rows, length)).astype(np.int32)
    real_B1 = rng.integers(length // 2, length + 1, (rows, 1))
    return token_BM * (np.arange(length) < real_B1)


@dataclasses.dataclass
class Characters:
    """Ids of characters: a vocabulary for tests, with `sentinels` sentinels at its end."""

    alphabet: str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ .,_"
    sentinels: int = 4
    eos_id: int = EOS
    pad_id: int = 0
    digest: str = "characters"

    @property
    def size(self) -> int:
        return 2 + len(self.alphabet) + self.sentinels

    def sentinel_id(self, index: int) -> int:
        return self.size - 1 - index

    def encode(self, text: str) -> list[int]:
        return [2 + self.alphabet.index(character) for character in text]

    def encode_blanks(self, text: str) -> list[int]:
        parts = re.split(r"(<extra_id_\d+>)", text)
        return [token for part in parts for token in self._ids(part)]

    def _ids(self, part: str) -> list[int]:
        if part.startswith("<extra_id_"):
            return [self.sentinel_id(int(part[10:-1]))]
        return self.encode(part)

    def decode(self, ids: list[int]) -> str:
        ids = ids[: ids.index(EOS)] if EOS in ids else ids
        return "".join(self._text(token) for token in ids if token)

    def _text(self, token: int) -> str:
        if token >= self.size - self.sentinels:
            return f"<extra_id_{self.size - 1 - token}>"
        return self.alphabet[token - 2] if token >= 2 else "?"
