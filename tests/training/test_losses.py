"""Losses against NumPy, and schedules against closed forms."""

import jax
import numpy as np
import pytest

from switchx.evaluation.losses import Counts
from switchx.training.config import OptimizerConfig
from switchx.training.objectives.losses import token_sums
from switchx.training.schedules import Rates, make_schedule


def numpy_losses(logits, targets, weights, smoothing, z_loss):
    """Token by token, in float64, from the definition of cross-entropy between distributions."""
    V = logits.shape[-1]
    cross_entropy = objective = z = correct = 0.0
    for row, target, weight in zip(
        logits.reshape(-1, V).astype(np.float64), targets.ravel(), weights.ravel(), strict=True
    ):
        log_z = np.log(np.sum(np.exp(row)))
        log_p = row - log_z
        q = np.full(V, smoothing / (V - 1))
        q[target] = 1 - smoothing
        own = -np.sum(np.where(q > 0, q * np.log(np.where(q > 0, q, 1)), 0))
        cross_entropy += weight * -log_p[target]
        z += weight * z_loss * log_z**2
        objective += weight * (-np.sum(q * log_p) - own + z_loss * log_z**2)
        correct += weight * (np.argmax(row) == target)
    return cross_entropy, objective, z, correct, weights.sum()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
def test_losses_equal_numpy(smoothing, z_loss):
    rng = np.random.default_rng(0)
    logits = 3 * rng.standard_normal((3, 5, 11)).astype(np.float32)
    targets = rng.integers(0, 11, (3, 5)).astype(np.int32)
    logits[0, 0, targets[0, 0]] = 20  # one sure hit
    weights = (rng.random((3, 5)) < 0.7).astype(np.float32)
    weights[0, 0] = 1
    sums = token_sums(logits, targets, weights, smoothing, z_loss)
    expected = numpy_losses(logits, targets, weights, smoothing, z_loss)
    names = ("cross_entropy", "objective", "z_loss", "correct", "weight")
    actual = tuple(sums[name] for name in names)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_padding_has_no_gradient():
    logits = np.random.default_rng(1).standard_normal((1, 2, 5)).astype(np.float32)
    targets, weights = np.array([[3, 0]]), np.array([[1.0, 0.0]], np.float32)
    grad = jax.grad(lambda x: token_sums(x, targets, weights, 0.1, 1e-2)["objective"])(logits)
    assert np.all(grad[0, 1] == 0)
    assert np.any(grad[0, 0] != 0)


def schedule_of(config, steps):
    return make_schedule(config.schedule, Rates.of(config, steps))


def test_inverse_square_root_is_flat_then_falls_as_t5s():
    rate = schedule_of(OptimizerConfig(), 10**6)
    np.testing.assert_allclose(rate(0), 0.01, rtol=1e-6)
    np.testing.assert_allclose(rate(10_000), 0.01, rtol=1e-6)
    np.testing.assert_allclose(rate(250_000), 0.002, rtol=1e-6)
    np.testing.assert_allclose(rate(500_000), 0.001414, rtol=1e-3)


@pytest.mark.parametrize(
    ("schedule", "half", "end"),
    [("constant", 3.0, 3.0), ("linear", 1.5, 0.0), ("cosine", 1.5, 0.0)],
)
def test_the_other_schedules_rise_and_fall(schedule, half, end):
    config = OptimizerConfig(schedule=schedule, learning_rate=3.0, warmup_steps=10)
    rate = schedule_of(config, 110)
    np.testing.assert_allclose([rate(0), rate(4), rate(9)], [0.3, 1.5, 3.0], rtol=1e-6)
    np.testing.assert_allclose([rate(60), rate(110)], [half, end], rtol=1e-6, atol=1e-6)


def test_wsd_rises_stays_and_falls_as_one_minus_the_square_root():
    config = OptimizerConfig(schedule="wsd", learning_rate=3.0, warmup_steps=10, decay_share=0.25)
    steps = np.arange(120)
    expected = np.where(steps < 10, 0.3 * (steps + 1), 3.0)
    expected = np.where(steps < 90, expected, 3.0 * (1 - np.sqrt(np.maximum(steps - 90, 0) / 30)))
    assert config.decay_start(120) == 90
    rate = schedule_of(config, 120)
    np.testing.assert_allclose(rate(steps), expected, rtol=1e-5)
    assert rate(120) < 1e-6


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_before_its_decay_wsd_depends_on_no_bit_of_the_run_s_length(share):
    config = OptimizerConfig(schedule="wsd", learning_rate=0.7, warmup_steps=3, decay_share=share)
    lengths = (10, 101, 10**5, 2**25 + 1)
    rates = [jax.jit(schedule_of(config, steps)) for steps in lengths]
    for shorter, longer, steps in zip(rates, rates[1:], lengths, strict=False):
        start = config.decay_start(steps)
        shared = np.unique(np.linspace(0, start, 50).astype(np.int32))
        for step in shared:
            assert np.array_equal(shorter(step), longer(step))
        assert shorter(start + 1) < longer(start + 1) == np.float32(0.7)


def test_unigram_entropy_of_known_frequencies():
    targets = np.array([[1, 1, 2, 3], [9, 9, 9, 9]])
    weights = np.array([[1, 1, 1, 1], [0, 0, 0, 0]], np.float32)
    batch = {"decoder_target_tokens": targets, "decoder_loss_weights": weights}
    expected = -(0.5 * np.log(0.5) + 2 * 0.25 * np.log(0.25))
    counts = Counts()
    counts.add(batch)
    np.testing.assert_allclose(counts.entropy(), expected, rtol=1e-12)
    counts.add({"decoder_target_tokens": np.full((1, 4), 12), "decoder_loss_weights": weights[:1]})
    expected = -(0.5 * np.log(0.5) + 0.25 * np.log(0.25) + 2 * 0.125 * np.log(0.125))
    np.testing.assert_allclose(counts.entropy(), expected, rtol=1e-12)
