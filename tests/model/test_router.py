"""Contract "oracle": router, capacity, drops and losses equal plain NumPy, at every policy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchx.model.router import expert_capacity
from switchx.model.routing import route as route_by
from tests.helpers import jit, random_mask, switch_config
from tests.model import oracle

# (tokens per group, experts, choices): one expert, few, more than tokens. Few shapes and many
# inputs for each: a shape is compiled once.
SHAPES = [(12, 5, 1), (12, 5, 2), (6, 16, 1), (6, 16, 3), (12, 1, 1), (1, 2, 1)]
GROUPS = 2


def random_logits(seed, tokens, experts, ties):
    """float32 logits; with `ties`, of a few values only, so that many are exactly the same."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(GROUPS, tokens, experts))
    if ties:
        logits = np.round(logits)
    mask = rng.random((GROUPS, tokens)) < 0.8
    mask[0] &= seed % 4 != 0  # now and then a group of nothing but padding
    return logits.astype(np.float32), mask


def routing(logits_GSE, mask_GS, top_k, capacity):
    config = switch_config(num_experts=logits_GSE.shape[-1], top_k=top_k)
    assignment, stats = route_by(config, logits_GSE, mask_GS, capacity, True, None)
    return jax.nn.softmax(logits_GSE, axis=-1), assignment, stats


route = jit(routing, static_argnums=(2, 3))


@pytest.mark.parametrize(("S", "E", "top_k"), SHAPES)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), room=st.sampled_from([1, 2, 4, 12]), ties=st.booleans())
def test_assignment_and_statistics_equal_the_oracle(S, E, top_k, seed, room, ties):
    logits, mask = random_logits(seed, S, E, ties)
    probs, found, stats = jax.tree.map(np.array, route(logits, mask, top_k, room))
    groups = []
    for g in range(GROUPS):
        # The oracle gets the same float32 probabilities, so that ties are ties for both.
        expected = oracle.route(probs[g], mask[g], top_k, room)
        groups.append((logits[g].astype(np.float64), mask[g], expected))
        kept = found.kept_GSJ[g]
        np.testing.assert_array_equal(found.expert_GSJ[g], expected.expert_SJ)
        np.testing.assert_array_equal(kept, expected.slot_SJ >= 0)
        np.testing.assert_array_equal(found.slot_GSJ[g][kept], expected.slot_SJ[kept])
        np.testing.assert_allclose(found.gate_GSJ[g], expected.gate_SJ, rtol=1e-6)
    expected_stats = oracle.stats(groups)
    for name in ("balance_loss", "z_loss", "load_E", "dropped_fraction", "entropy", "gate_mean"):
        np.testing.assert_allclose(
            getattr(stats, name), getattr(expected_stats, name), rtol=2e-5, atol=2e-6, err_msg=name
        )


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    factor=st.sampled_from([0.5, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0]),
    tokens=st.integers(1, 5000),
    experts=st.integers(1, 300),
    top_k=st.sampled_from([1, 2]),
    least=st.sampled_from([1, 4]),
)
def test_capacity_equals_the_oracle(factor, tokens, experts, top_k, least):
    config = switch_config(
        num_experts=max(experts, top_k),
        top_k=top_k,
        train_capacity_factor=factor,
        eval_capacity_factor=2 * factor,
        min_capacity=least,
    )
    for train, used in ((True, factor), (False, 2 * factor)):
        expected = oracle.capacity(used, tokens, config.num_experts, top_k, least)
        assert expert_capacity(config, tokens, train) == expected


def test_capacities_of_the_paper():
    """Figure 3: six tokens over three experts have 2 slots at factor 1.0 and 3 at 1.5."""
    config = switch_config(num_experts=3, train_capacity_factor=1.0, eval_capacity_factor=1.5)
    assert expert_capacity(config, 6, train=True) == 2
    assert expert_capacity(config, 6, train=False) == 3


def test_capacity_is_kept_not_one_less():
    """The pseudo-code of the paper's figure 15 loses a slot; the original code does not."""
    probs = jnp.zeros((1, 8, 2)).at[..., 0].set(1.0)
    kept = route(probs, jnp.ones((1, 8), bool), 1, 5)[1].kept_GSJ[0, :, 0]
    assert kept.tolist() == [True] * 5 + [False] * 3


def test_first_choices_are_placed_before_second_ones():
    # Token 0 wants expert 0, then 1; token 1 wants expert 1, then 0. One slot each.
    probs = jnp.array([[[0.6, 0.4], [0.4, 0.6]]])
    found = route(jnp.log(probs), jnp.ones((1, 2), bool), 2, 1)[1]
    assert found.kept_GSJ[0].tolist() == [[True, False], [True, False]]
    np.testing.assert_allclose(found.gate_GSJ[0], [[0.6, 0], [0.6, 0]], rtol=1e-6)


def stats_of(logits_GSE, mask_GS=None):
    logits = jnp.asarray(logits_GSE, jnp.float32)
    mask = jnp.ones(logits.shape[:2], bool) if mask_GS is None else jnp.asarray(mask_GS)
    return route(logits, mask, 1, logits.shape[1])[2]


@pytest.mark.parametrize("E", [2, 8, 128])
def test_identities(E):
    """Uniform routing gives 1, collapse E (times alpha in the loss); zero logits give (ln E)^2."""
    even = 30.0 * np.eye(E)[np.arange(2 * E) % E][None]
    stats = stats_of(even)
    np.testing.assert_allclose(stats.balance_loss, 1.0, rtol=1e-5)
    np.testing.assert_allclose(stats.load_E, 1 / E, rtol=1e-5)
    collapsed = 30.0 * np.eye(E)[np.zeros(2 * E, int)][None]
    np.testing.assert_allclose(stats_of(collapsed).balance_loss, E, rtol=1e-5)
    zero = stats_of(np.zeros((1, 2 * E, E)))
    np.testing.assert_allclose(zero.z_loss, math.log(E) ** 2, rtol=1e-5)
    np.testing.assert_allclose(zero.entropy, math.log(E), rtol=1e-5)
    np.testing.assert_allclose(zero.gate_mean, 1 / E, rtol=1e-5)


def test_an_all_padding_batch_has_no_loss():
    stats = stats_of(np.ones((2, 4, 3)), np.zeros((2, 4), bool))
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(stats))


def test_padding_changes_no_statistic():
    """What padding's logits are does not matter: an explicit mask, not zeroed activations."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 12, 4))
    mask = random_mask(rng, 2, 12)
    other = np.where(mask[..., None], logits, 100 * rng.normal(size=logits.shape))
    jax.tree.map(np.testing.assert_array_equal, stats_of(logits, mask), stats_of(other, mask))


def test_balance_loss_has_its_gradient_through_probabilities_alone():
    """d/dlogits of E * sum f_e P_e with f fixed, by hand."""
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(1, 6, 3)).astype(np.float32)
    mask = jnp.ones((1, 6), bool)
    found = jit(jax.grad(lambda x: routing(x, mask, 1, 6)[2].balance_loss))(logits)[0]
    probs = np.stack([oracle.softmax(row) for row in logits[0].astype(float)])
    f = np.bincount(probs.argmax(-1), minlength=3) / 6
    expected = 3 / 6 * probs * (f - (probs * f).sum(-1, keepdims=True))
    np.testing.assert_allclose(found, expected, atol=1e-6)
