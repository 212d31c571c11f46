"""Balance over a batch: choices, sums and the biases' steps, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switchx.model import NO_NOISE
from switchx.model.routing import Balance, Tally, Tokens, TokensChoose
from switchx.model.routing.balance import (
    EDGES_Q,
    batch_balance_loss,
    moved_by_counts,
    moved_by_quantiles,
)

G, S, E = 3, 40, 6
rng = np.random.default_rng(0)
LOGITS_GSE = (rng.normal(size=(G, S, E)) + np.linspace(0, 2, E)).astype(np.float32)
MASK_GS = rng.random((G, S)) < 0.8
BIAS_E = rng.normal(size=E).astype(np.float32)


def softmax(logits):
    e = np.exp(logits.astype(np.float64))
    return e / e.sum(-1, keepdims=True)


def routed(bias_E=BIAS_E, top_k=1, capacity=None):
    score_GSE = jax.nn.softmax(LOGITS_GSE + bias_E, axis=-1)
    balance = Balance(top_k, quantiles=True, probs=True)
    tokens = Tokens(
        jnp.asarray(LOGITS_GSE),
        score_GSE,
        jnp.asarray(MASK_GS),
        NO_NOISE,
        jnp.asarray(bias_E),
        balance,
    )
    return TokensChoose(top_k).route(tokens, capacity)


def tally_of(bias_E=BIAS_E, top_k=1):
    """With the axis of layers that a stack gives it."""
    tally = routed(bias_E, top_k)[1].tally
    return jax.tree.map(lambda x: jnp.stack([x]), tally)


@pytest.mark.parametrize("top_k", [1, 2])
def test_the_bias_decides_the_choice_and_no_gate(top_k):
    assignment, stats = routed(top_k=top_k)
    expert_GSJ = np.argsort(-(LOGITS_GSE + BIAS_E), axis=-1, kind="stable")[..., :top_k]
    assert (expert_GSJ[..., 0] != LOGITS_GSE.argmax(-1)).mean() > 0.1
    np.testing.assert_array_equal(assignment.expert_GSJ, expert_GSJ)
    gate_GSJ = np.take_along_axis(softmax(LOGITS_GSE), expert_GSJ, axis=-1)
    gate_GSJ = gate_GSJ / gate_GSJ.sum(-1, keepdims=True) if top_k > 1 else gate_GSJ
    np.testing.assert_allclose(assignment.gate_GSJ, gate_GSJ * MASK_GS[..., None], rtol=1e-5)
    tally = stats.tally
    count_E = np.bincount(expert_GSJ[MASK_GS].reshape(-1), minlength=E)
    np.testing.assert_array_equal(tally.count_E, count_E)
    assert int(tally.tokens) == MASK_GS.sum()
    np.testing.assert_allclose(tally.prob_E, softmax(LOGITS_GSE)[MASK_GS].sum(0), rtol=1e-5)


def test_bias_balancing_goes_by_the_sign_of_what_is_missing():
    counts = np.array([[10, 4, 4, 0], [3, 3, 3, 2], [5, 5, 5, 5], [2_000_000, 0, 1, 499_999]])
    tally = Tally(jnp.asarray(counts.sum(-1)), jnp.asarray(counts, jnp.int32), None, None)
    moved = moved_by_counts(jnp.zeros((4, 4)), tally, 0.25)
    mean = counts.mean(-1, keepdims=True)
    np.testing.assert_array_equal(moved, 0.25 * np.sign(mean - counts))
    # E times a count of experts may be more than 32 bits hold.
    many = jnp.asarray([[2**30, 0, 0, 2**28]], jnp.int32)
    moved = moved_by_counts(jnp.zeros((1, 4)), Tally(jnp.zeros((1,)), many, None, None), 0.25)
    np.testing.assert_array_equal(moved, [[-0.25, 0.25, 0.25, 0.25]])


@pytest.mark.parametrize("top_k", [1, 2])
def test_quantile_balancing_is_the_quantile_of_the_margins(top_k):
    """Of NumPy, up to the width of a bin."""
    score_TE = (LOGITS_GSE + BIAS_E)[MASK_GS].astype(np.float64)
    sorted_TE = np.sort(score_TE, axis=-1)[:, ::-1]
    margin_TE = score_TE - sorted_TE[:, top_k - 1 : top_k + 1].mean(-1, keepdims=True)
    chosen_TE = np.argsort(np.argsort(-score_TE, axis=-1), axis=-1) < top_k
    np.testing.assert_array_equal(margin_TE > 0, chosen_TE)
    tally = tally_of(top_k=top_k)
    below_EQ = (margin_TE[..., None] <= EDGES_Q.astype(np.float64)).sum(0)
    assert np.abs(np.asarray(tally.below_EQ[0]) - below_EQ).max() <= 1  # float32 at an edge
    q_E = np.quantile(margin_TE, 1 - top_k / E, axis=0, method="inverted_cdf")
    for share in (1.0, 0.25):
        moved_E = moved_by_quantiles(jnp.asarray(BIAS_E[None]), tally, share, top_k)[0]
        wanted_E = BIAS_E - share * (q_E - q_E.mean())
        assert np.abs(moved_E - wanted_E).max() < 0.12 * np.abs(q_E).max()
        np.testing.assert_allclose(moved_E.mean(), BIAS_E.mean(), atol=1e-6)


@pytest.mark.parametrize("top_k", [1, 2])
def test_a_few_of_its_steps_balance_a_batch(top_k):
    bias_E, mean = np.zeros(E, np.float32), MASK_GS.sum() * top_k / E
    before = np.asarray(tally_of(bias_E, top_k).count_E[0])
    for _ in range(8):
        tally = tally_of(bias_E, top_k)
        bias_E = np.asarray(moved_by_quantiles(jnp.asarray(bias_E[None]), tally, 1.0, top_k)[0])
    after = np.asarray(tally_of(bias_E, top_k).count_E[0])
    assert np.abs(before - mean).max() > 0.5 * mean
    assert np.abs(after - mean).max() < 0.2 * mean


def test_a_batch_of_padding_moves_nothing():
    nothing = jax.tree.map(jnp.zeros_like, tally_of())
    bias_NE = jnp.asarray(BIAS_E[None])
    np.testing.assert_array_equal(moved_by_counts(bias_NE, nothing, 0.1), bias_NE)
    np.testing.assert_array_equal(moved_by_quantiles(bias_NE, nothing, 1.0, 1), bias_NE)
    assert batch_balance_loss(nothing, nothing) == 0


def test_the_loss_over_a_batch_is_that_of_all_its_tokens():
    """Parts of it add up to the whole; uniform routing gives 1, as the paper's."""
    expert_GS = (LOGITS_GSE + BIAS_E).argmax(-1)
    f_E = np.bincount(expert_GS[MASK_GS], minlength=E) / MASK_GS.sum()
    P_E = softmax(LOGITS_GSE)[MASK_GS].mean(0)
    tally = tally_of()
    np.testing.assert_allclose(batch_balance_loss(tally, tally), E * (f_E * P_E).sum(), rtol=1e-5)
    part = Tally(tally.tokens, tally.count_E, None, tally.prob_E * 0.25)
    quarter = batch_balance_loss(part, tally)
    np.testing.assert_allclose(4 * quarter, batch_balance_loss(tally, tally), rtol=1e-6)
