"""Several examples in a row see nothing of each other: as if each had a row of its own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switchx.model import NO_NOISE, Model, Segments
from tests.helpers import init, sparse_config, tiny_config

M, L, VOCAB = 24, 16, 64
# (tokens of the input, tokens of the target) of each example, row by row.
ROWS = [[(9, 4), (8, 7), (3, 5)], [(24, 3)], [(1, 1), (2, 12), (11, 2)], [(5, 16)]]
# Slots for all: what a token computes then depends on no other, whichever group it is in.
ROOMY = sparse_config(eval_capacity_factor=4.0, encoder_group_size=24, experts_in="both")
CONFIGS = {
    "dense": tiny_config(num_layers=1, switch=None),
    "experts": ROOMY,
}


def examples(seed=0):
    """(input, target) of each example, row by row."""
    rng = np.random.default_rng(seed)
    return [[[rng.integers(1, VOCAB, n) for n in lengths] for lengths in row] for row in ROWS]


def laid_out(rows):
    """What the model is called with, and the targets, for rows of examples."""
    B = len(rows)
    encoder, encoder_segment = np.zeros((2, B, M), np.int32)
    target, shifted, decoder_segment = np.zeros((3, B, L), np.int32)
    for b, row in enumerate(rows):
        m = l = 0
        for number, (inputs, targets) in enumerate(row, start=1):
            to_m, to_l = m + len(inputs), l + len(targets)
            encoder[b, m:to_m], encoder_segment[b, m:to_m] = inputs, number
            target[b, l:to_l], decoder_segment[b, l:to_l] = targets, number
            shifted[b, l + 1 : to_l] = targets[:-1]  # behind the start token
            m, l = to_m, to_l
    return encoder, shifted, target, Segments(encoder_segment, decoder_segment)


@functools.cache
def compiled(config):
    model = Model.of(config)

    def loss(params, encoder, shifted, target, segments):
        output = model.bind(params)(encoder, shifted, target > 0, NO_NOISE, segments)
        logp_BLV = jax.nn.log_softmax(output.logits_BLV)
        logp_BL = jnp.take_along_axis(logp_BLV, target[..., None], axis=-1)[..., 0]
        aux = (output.logits_BLV, output.stats_N)
        return -jnp.sum(jnp.where(target > 0, logp_BL, 0.0)), aux

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def run(config, rows, packed=True):
    """Loss, logits, statistics and gradients."""
    *tokens, segments = laid_out(rows)
    given = (*tokens, segments if packed else None)
    (loss, (logits, stats)), gradients = compiled(config)(init(config), *given)
    return jax.tree.map(np.array, (loss, logits, stats, gradients))


@functools.cache
def apart(config):
    """As `run`, each example in a row of its own."""
    return run(config, [[example] for row in examples() for example in row], packed=False)


@pytest.mark.parametrize("name", CONFIGS)
def test_losses_and_gradients_are_those_of_a_row_each(name):
    rows = examples()
    loss, logits, stats, gradients = run(CONFIGS[name], rows)
    expected_loss, expected_logits, expected_stats, expected = apart(CONFIGS[name])
    for each in (stats, expected_stats):
        assert each is None or not np.any(each.dropped_fraction)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), gradients, expected
    )
    segment_BL = laid_out(rows)[-1].decoder_BL
    places = [(b, n) for b, row in enumerate(rows) for n in range(1, len(row) + 1)]
    for (b, n), alone in zip(places, expected_logits, strict=True):
        here = logits[b, segment_BL[b] == n]
        np.testing.assert_allclose(here, alone[: len(here)], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("part", [0, 1], ids=["input", "target"])
def test_another_segment_changes_nothing(name, part):
    """Bit for bit: both the example before it in the row and the one behind it are others."""
    rows, others = examples(), examples(seed=1)
    for b, n in ((0, 0), (0, 2), (2, 0), (2, 2)):
        rows[b][n][part] = others[b][n][part]
    (_, before, _, _), (_, after, _, _) = run(CONFIGS[name], examples()), run(CONFIGS[name], rows)
    same_BL = (before == after).all(-1)
    segment_BL = laid_out(rows)[-1].decoder_BL[[0, 2]]
    assert same_BL[[0, 2]][segment_BL == 2].all()
    assert not same_BL[[0, 2]][segment_BL == 3].all()


def test_without_segments_examples_do_see_each_other():
    """The comparison above can fail."""
    _, packed, _, _ = run(CONFIGS["dense"], examples())
    _, mixed, _, _ = run(CONFIGS["dense"], examples(), packed=False)
    assert np.abs(packed[0] - mixed[0]).max() > 1e-2
