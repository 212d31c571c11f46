"""Contract "oracle": assignments, drops, losses and statistics equal plain NumPy's, per policy."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchx.model import NO_NOISE
from tests.helpers import noise, random_mask, switch_config
from tests.model import policies
from tests.model import routing_oracle as oracle
from tests.model.policies import CAUSAL, DROPLESS, POLICIES, POOLED, RANDOM

route = jax.jit(policies.route, static_argnums=(0, 3, 4))

GROUPS = 2
# (tokens per group, experts, slots). Few shapes and many inputs for each: each is compiled once.
SHAPES = {
    "usual": (12, 5, 3),
    "more experts than tokens, one slot": (6, 8, 1),
    "one expert": (12, 1, 4),
    "experts in pairs": (12, 4, 5),
    "one token": (1, 3, 1),
}
# One of each kind: of these every shape is tried, of the others the usual one.
KINDS = (
    "switch",
    "top 2, by gate",
    "top 3 at random",
    "two more rounds, by gate",
    "experts choose",
    "dropless top 2",
)


def decoders():
    """Policies of which the decoder makes something different: many are the same there."""
    found = {}
    for name, changes in {**POLICIES, **DROPLESS, **POOLED}.items():
        config = switch_config(**changes)
        causal = dataclasses.replace(config.policy(causal=True), priority="sequence")
        found.setdefault((causal, config.explorer, config.dropless, config.ragged_pools), name)
    return [*found.values(), *(name for name in CAUSAL if name not in found.values())]


def cases():
    """(policy, settings, shape, causal, whether noise is given)."""
    for name, changes in {**POLICIES, **DROPLESS, **POOLED}.items():
        usual = "experts in pairs" if name in POOLED else "usual"
        for shape, (_, experts, _) in SHAPES.items():
            own = shape == usual or (name in KINDS and shape != "experts in pairs")
            if policies.fits(changes, experts) and own:
                yield name, changes, shape, False, name in RANDOM
        if name in RANDOM:
            yield name, changes, usual, False, False
        if name in CAUSAL:
            yield name, changes, usual, True, name in RANDOM


def random_logits(rng, kind, tokens, experts):
    """float32. Ties are between equal numbers of equal rows: whatever rounding does, it does to
    both.
    """
    logits = rng.normal(size=(GROUPS, tokens, experts))
    if kind == "few rows":
        logits = logits[:, rng.integers(0, min(tokens, 3), tokens)]
    if kind == "equal experts":
        logits[..., -1] = logits.max(axis=-1)
        logits[..., 0] = logits[..., -1]
    if kind == "zeros":
        logits[:] = 0.0
    return logits.astype(np.float32)


def random_masks(rng, kind, tokens):
    if kind == "no padding":
        return np.ones((GROUPS, tokens), bool)
    mask = rng.random((GROUPS, tokens)) < 0.8
    if kind == "a group of padding":
        mask[0] = False
    if kind == "all padding":
        mask[:] = False
    return mask


def sound(found, mask_GS, capacity, pool_E):
    """Fails unless each slot holds at most one choice, without gaps, and no padding is kept."""
    kept = found.kept_GSJ
    assert not kept[~mask_GS].any()
    assert not found.gate_GSJ[~kept].any()
    if capacity is None:
        return
    for g in range(GROUPS):
        pool_SJ = pool_E[found.expert_GSJ[g]]
        for pool in np.unique(pool_SJ[kept[g]]):
            slots = found.slot_GSJ[g][kept[g] & (pool_SJ == pool)]
            assert len(slots) <= capacity
            assert sorted(slots) == list(range(len(slots)))


@pytest.mark.parametrize(
    ("name", "changes", "shape", "causal", "train"),
    [pytest.param(*case, id=", ".join(map(str, (case[0], *case[2:])))) for case in cases()],
)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    ties=st.sampled_from(["none", "few rows", "equal experts", "zeros"]),
    padding=st.sampled_from(["some", "no padding", "a group of padding", "all padding"]),
)
def test_assignment_and_statistics_equal_the_oracle(
    name, changes, shape, causal, train, seed, ties, padding
):
    S, E, room = SHAPES[shape]
    config = switch_config(num_experts=E, **changes)
    capacity = None if config.dropless else room
    rng = np.random.default_rng(seed)
    logits, mask = random_logits(rng, ties, S, E), random_masks(rng, padding, S)
    keys = noise(GROUPS, seed) if train else NO_NOISE
    found, stats = route(config, jnp.asarray(logits), jnp.asarray(mask), capacity, causal, keys)
    assert found.expert_GSJ.dtype == found.slot_GSJ.dtype == jnp.int32
    assert found.gate_GSJ.dtype == jnp.float32
    found = jax.device_get(found)
    expected, expected_stats = policies.routed(config, logits, mask, capacity, causal, keys)
    for g in range(GROUPS):
        kept = expected[g].kept_SJ
        np.testing.assert_array_equal(found.kept_GSJ[g], kept)
        np.testing.assert_array_equal(found.expert_GSJ[g][kept], expected[g].expert_SJ[kept])
        np.testing.assert_allclose(found.gate_GSJ[g], expected[g].gate_SJ, rtol=1e-5)
    policies.same_stats(stats, expected_stats)
    pools = policies.pools_of(config) if config.ragged_pools else range(E)
    sound(found, mask, capacity, np.array(pools))


def assigned(name, logits, mask, causal):
    """Expert and gate of what is kept, [G, S, J] twice, in training."""
    config = switch_config(num_experts=logits.shape[-1], **{**POLICIES, **DROPLESS, **POOLED}[name])
    capacity = None if config.dropless else 2
    found, _ = route(config, jnp.asarray(logits), jnp.asarray(mask), capacity, causal, noise(1))
    return np.where(found.kept_GSJ, found.expert_GSJ, -1), np.array(found.gate_GSJ)


def changed(name, causal):
    """Whether anything about the first tokens changes with the logits or padding of later ones."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        logits = rng.normal(size=(1, 12, 6)).astype(np.float32)
        mask = rng.random((1, 12)) < 0.9
        others = 3 * rng.normal(size=logits.shape).astype(np.float32), rng.random((1, 12)) < 0.9
        before = assigned(name, logits, mask, causal)
        for first in (1, 6, 11):
            later = np.arange(12) >= first
            moved = np.where(later[:, None], others[0], logits), np.where(later, others[1], mask)
            after = assigned(name, *moved, causal)
            if any(
                (a[:, :first] != b[:, :first]).any() for a, b in zip(before, after, strict=True)
            ):
                return True
    return False


@pytest.mark.parametrize("name", decoders())
def test_in_the_decoder_nothing_depends_on_later_tokens(name):
    assert not changed(name, causal=True)


@pytest.mark.parametrize("name", ["by gate", "top 2", "one more round", "experts choose"])
def test_in_the_encoder_something_does(name):
    """What the decoder's test would see."""
    assert changed(name, causal=False)


def test_sampling_follows_the_softmax_without_replacement():
    """First choices come up as often as their probability; pairs as drawn one after the other."""
    logits = np.array([1.0, 0.0, -1.0, 0.5])
    tokens = 20_000
    config = switch_config(top_k=2, exploration="sample")
    found, stats = route(
        config,
        jnp.broadcast_to(jnp.float32(logits), (1, tokens, 4)),
        jnp.ones((1, tokens), bool),
        tokens,
        False,
        noise(1),
    )
    probs = oracle.softmax(logits)
    first, second = np.array(found.expert_GSJ[0]).T
    # Four standard deviations of a share.
    near = lambda p: pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / tokens))  # noqa: E731
    for a in range(4):
        assert np.mean(first == a) == near(probs[a])
        for b in range(4):
            pair = 0.0 if a == b else probs[a] * probs[b] / (1 - probs[a])
            assert np.mean((first == a) & (second == b)) == near(pair)
    # The gates stay those of the softmax.
    np.testing.assert_allclose(
        found.gate_GSJ[0, :, 0], probs[first] / (probs[first] + probs[second]), rtol=1e-5
    )
    np.testing.assert_allclose(stats.gate_mean, probs.max(), rtol=1e-5)


def test_capacity_is_kept_not_one_less():
    """The pseudo-code of the paper's figure 15 loses a slot; the original code does not."""
    logits = jnp.zeros((1, 8, 2)).at[..., 0].set(9.0)
    found, stats = route(
        switch_config(num_experts=2), logits, jnp.ones((1, 8), bool), 5, False, None
    )
    assert found.kept_GSJ[0, :, 0].tolist() == [True] * 5 + [False] * 3
    np.testing.assert_allclose(stats.dropped_fraction, 3 / 8)


def test_first_choices_are_placed_before_second_ones():
    # Token 0 wants expert 0, then 1; token 1 wants expert 1, then 0. One slot each.
    logits = jnp.log(jnp.array([[[0.6, 0.4], [0.4, 0.6]]]))
    config = switch_config(num_experts=2, top_k=2)
    found, _ = route(config, logits, jnp.ones((1, 2), bool), 1, False, NO_NOISE)
    assert found.kept_GSJ[0].tolist() == [[True, False], [True, False]]
    np.testing.assert_allclose(found.gate_GSJ[0], [[0.6, 0], [0.6, 0]], rtol=1e-6)


def test_the_surest_token_goes_first_by_gate():
    """One slot: by sequence the first token takes it, by gate the surest, of two such the first."""
    logits = jnp.array([[[1.0, 0.0], [5.0, 0.0], [5.0, 0.0]]])
    for priority, kept in (("sequence", [True, False, False]), ("gate", [False, True, False])):
        config = switch_config(num_experts=2, priority=priority)
        found, _ = route(config, logits, jnp.ones((1, 3), bool), 1, False, NO_NOISE)
        assert found.kept_GSJ[0, :, 0].tolist() == kept


def test_rerouted_tokens_take_what_room_is_left():
    """Three tokens want expert 0, which has one slot; one each goes to their second and third."""
    logits = jnp.log(jnp.array([[[0.7, 0.2, 0.1]] * 3]))
    kept = {0: [0], 1: [0, 1], 2: [0, 1, 2]}
    for rounds, experts in kept.items():
        config = switch_config(num_experts=3, reroute_rounds=rounds)
        found, stats = route(config, logits, jnp.ones((1, 3), bool), 1, False, NO_NOISE)
        assert found.expert_GSJ[0, : len(experts), 0].tolist() == experts
        assert found.kept_GSJ[0, :, 0].tolist() == [s < len(experts) for s in range(3)]
        gates = [0.7, 0.2, 0.1][: len(experts)] + [0.0] * (3 - len(experts))
        np.testing.assert_allclose(found.gate_GSJ[0, :, 0], gates, rtol=1e-5)
        np.testing.assert_allclose(stats.dropped_fraction, 1 - len(experts) / 3, atol=1e-6)
        # The balance loss is about what the router asked for, not about what it got.
        np.testing.assert_allclose(stats.load_E, [1, 0, 0])


def stats_of(logits_GSE, mask_GS=None, **changes):
    logits = jnp.asarray(logits_GSE, jnp.float32)
    mask = jnp.ones(logits.shape[:2], bool) if mask_GS is None else jnp.asarray(mask_GS)
    config = switch_config(num_experts=logits.shape[-1], **changes)
    capacity = None if config.dropless else logits.shape[1]
    return route(config, logits, mask, capacity, False, NO_NOISE)[1]


@pytest.mark.parametrize("changes", [{}, dict(dispatcher="ragged"), dict(priority="gate")])
@pytest.mark.parametrize("E", [2, 8, 128])
def test_identities(E, changes):
    """Uniform routing gives 1, collapse E (times alpha in the loss); zero logits give (ln E)^2."""
    even = 30.0 * np.eye(E)[np.arange(2 * E) % E][None]
    stats = stats_of(even, **changes)
    np.testing.assert_allclose(stats.balance_loss, 1.0, rtol=1e-5)
    np.testing.assert_allclose(stats.load_E, 1 / E, rtol=1e-5)
    collapsed = 30.0 * np.eye(E)[np.zeros(2 * E, int)][None]
    np.testing.assert_allclose(stats_of(collapsed, **changes).balance_loss, E, rtol=1e-5)
    zero = stats_of(np.zeros((1, 2 * E, E)), **changes)
    np.testing.assert_allclose(zero.z_loss, math.log(E) ** 2, rtol=1e-5)
    np.testing.assert_allclose(zero.entropy, math.log(E), rtol=1e-5)
    np.testing.assert_allclose(zero.gate_mean, 1 / E, rtol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_padding_changes_no_statistic(name):
    """What padding's logits are does not matter: an explicit mask, not zeroed activations."""
    changes = {**POLICIES, **DROPLESS}[name]
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 12, 4))
    mask = random_mask(rng, 2, 12)
    other = np.where(mask[..., None], logits, 50 * rng.normal(size=logits.shape))
    found, again = stats_of(logits, mask, **changes), stats_of(other, mask, **changes)
    jax.tree.map(np.testing.assert_array_equal, found, again)
    nothing = stats_of(logits, np.zeros_like(mask), **changes)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(nothing))


@pytest.mark.parametrize("name", KINDS)
def test_losses_have_their_gradients_through_probabilities_alone(name):
    """d/dlogits of E * sum_e f_e P_e with f fixed, and of mean logsumexp^2, by hand."""
    config = switch_config(num_experts=5, **{**POLICIES, **DROPLESS}[name])
    capacity = None if config.dropless else 2
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(1, 6, 5)).astype(np.float32)
    mask = np.array([[True, True, False, True, True, True]])

    def loss(x):
        stats = policies.route(config, x, mask, capacity, False, NO_NOISE)[1]
        return stats.balance_loss + 0.1 * stats.z_loss

    found = jax.jit(jax.grad(loss))(logits)[0]
    f_E = policies.routed(config, logits, mask, capacity, False, NO_NOISE)[1].load_E
    for s in range(6):
        row = logits[0, s].astype(np.float64)
        probs_E = oracle.softmax(row)
        balance_E = 5 * probs_E * (f_E - probs_E @ f_E) / 5
        z_E = 2 * math.log(np.exp(row).sum()) * probs_E / 5
        expected = balance_E + 0.1 * z_E if mask[0, s] else np.zeros(5)
        np.testing.assert_allclose(found[s], expected, rtol=1e-4, atol=1e-6)
