"""Encoder output and decoder logits equal those of transformers, in float32."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switchx.interop.hf import open_source
from switchx.model import NO_NOISE, Model
from switchx.model.switch_layer import Groupings
from tests.helpers import with_switch
from tests.interop.peers import KINDS, LENGTH, VOCAB, abstract, ours, peer, save, torch

BATCH = 3
ATOL = 1e-4  # the issue's; measured differences are below 1e-5


def tokens(padding: str) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of encoder and decoder, [B, L]; the encoder's with zeros where padding is asked."""
    rng = np.random.default_rng(3)
    encoder = rng.integers(1, VOCAB, (BATCH, LENGTH)).astype(np.int32)
    decoder = rng.integers(1, VOCAB, (BATCH, LENGTH)).astype(np.int32)
    decoder[:, 0] = 0
    real_B1 = np.array([[LENGTH], [5], [2]])
    if padding == "right":
        encoder *= np.arange(LENGTH) < real_B1
    if padding == "left":
        encoder *= np.arange(LENGTH) >= LENGTH - real_B1
    return encoder, decoder


def theirs(model, encoder: np.ndarray, decoder: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mask = torch.tensor(encoder > 0).long()
    with torch.no_grad():
        output = model(
            input_ids=torch.tensor(encoder).long(),
            attention_mask=mask,
            decoder_input_ids=torch.tensor(decoder).long(),
        )
    return output.encoder_last_hidden_state.numpy(), output.logits.numpy()


def run(model: Model, params, encoder: np.ndarray, decoder: np.ndarray):
    def both(params):
        transformer = model.bind(params)
        grouping = Groupings.of(model.config.switch, train=False).encoder
        encoded, *_ = transformer.encode(encoder, grouping, NO_NOISE)
        mask = jnp.ones(decoder.shape, bool)
        return encoded, transformer(encoder, decoder, mask, NO_NOISE).logits_BLV

    return map(np.asarray, jax.jit(both)(params))


@pytest.mark.parametrize(
    ("kind", "padding"),
    [
        *((kind, padding) for kind in ("t5", "switch") for padding in ("none", "right", "left")),
        *((kind, "left") for kind in KINDS if kind not in ("t5", "switch")),
    ],
)
def test_logits_agree(kind, padding):
    encoder, decoder = tokens(padding)
    encoded, logits = run(*ours(kind), encoder, decoder)
    their_encoded, their_logits = theirs(peer(kind), encoder, decoder)
    real = encoder > 0
    np.testing.assert_allclose(encoded[real], their_encoded[real], rtol=0, atol=ATOL)
    np.testing.assert_allclose(logits, their_logits, rtol=0, atol=ATOL)


def test_a_tied_t5_1_1_that_transformers_5_makes(tmp_path):
    # Asked for a T5 1.1, transformers 5 ties the logits and leaves out the scale.
    config = peer("t5_1_1").config.__class__(**peer("t5_1_1").config.to_dict())
    config.scale_decoder_outputs = False
    model = peer("t5_1_1").__class__(config).eval()
    source = open_source(str(save(model, tmp_path)))
    assert (source.config.tied_embeddings, source.config.scaled_logits) == (True, False)
    mine = Model.of(dataclasses.replace(source.config, dtype="float32"))
    encoder, decoder = tokens("right")
    _, logits = run(mine, source.params(abstract(mine)), encoder, decoder)
    np.testing.assert_allclose(logits, theirs(model, encoder, decoder)[1], rtol=0, atol=ATOL)


def test_drops_agree_where_a_group_is_a_row():
    # transformers' one way of having a capacity: slots per row. A version that drops nothing,
    # as the first of 5 did (its issue 48293), fails here.
    capacity = 2
    model, params = ours("switch")
    small = Model.of(with_switch(model.config, min_capacity=capacity, eval_capacity_factor=0.1))
    their_model = peer("switch")
    routers = [m for m in their_model.modules() if hasattr(m, "expert_capacity")]
    encoder, decoder = tokens("none")
    _, all_kept = theirs(their_model, encoder, decoder)
    before = [router.expert_capacity for router in routers]
    for router in routers:
        router.expert_capacity = capacity
    try:
        their_encoded, their_logits = theirs(their_model, encoder, decoder)
    finally:
        for router, old in zip(routers, before, strict=True):
            router.expert_capacity = old
    encoded, logits = run(small, params, encoder, decoder)
    assert np.abs(all_kept - their_logits).max() > 0.1, "nothing was dropped"
    np.testing.assert_allclose(encoded, their_encoded, rtol=0, atol=ATOL)
    np.testing.assert_allclose(logits, their_logits, rtol=0, atol=ATOL)
