"""The whole layer in training against the oracle: output, statistics and gradients, per policy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from switchx.model.noise import NO_NOISE, dropout
from switchx.model.router import Router, expert_capacity
from tests.helpers import grouping, noise, random_mask, switch_layer, tiny_config, with_switch
from tests.model import oracle, policies, routing_oracle
from tests.model.policies import DROPLESS, POLICIES, POOLED

B, L, S, D, F, E = 4, 4, 8, 6, 5, 4
G, ROOM = B * L // S, 2
JITTER, RATE = 0.3, 0.3

EXPLORATIONS = {
    "argmax": dict(exploration="argmax"),
    "input dropout": dict(exploration="input_dropout", router_dropout_rate=RATE),
}
COST = dict(expert_widths=((3, 3), (1, 9)), balance_by="cost", min_capacity=1)
WIDTHS = {
    "two widths, top 2": dict(COST, top_k=2, balance_by="tokens"),
    "two widths, by cost": COST,
    "two widths, one more round": dict(COST, reroute_rounds=1),
    "two widths, experts choose": dict(COST, encoder_routing="experts_choose"),
}
DROPLESS_WIDTHS = {
    f"dropless {name}": dict(WIDTHS[name], dispatcher="ragged")
    for name in ("two widths, top 2", "two widths, by cost")
}
IN_SLOTS = {**POLICIES, **EXPLORATIONS}
POOLS = {f"pools of {n}": dict(dispatcher="ragged", ragged_pools=E // n) for n in (1, 4)}
# Of each kind of assignment: of several choices, rounds, by experts, to slots of several sizes.
BY_EINSUM = ["switch", "top 3 at random", "two more rounds, by gate", "experts choose"]
BY_EINSUM += ["two widths, by cost"]
CASES = [
    *((name, "index", False) for name in IN_SLOTS),
    *((name, "index", True) for name in ("top 2", "by gate", "one more round", "experts choose")),
    *((name, "ragged", False) for name in {**DROPLESS, **DROPLESS_WIDTHS}),
    *((name, "index", False) for name in WIDTHS),
    ("pools, top 2, by gate", "ragged", False),
    ("pools, at random", "ragged", True),
]


@functools.cache
def layer(name, dispatcher):
    """Graph and parameters; gated experts, so that nothing has a kink."""
    changes = {**IN_SLOTS, **DROPLESS, **WIDTHS, **DROPLESS_WIDTHS, **POOLED, **POOLS}[name]
    config = with_switch(
        tiny_config(d_model=D, d_ff=F, activation="geglu"),
        **{"num_experts": E, "jitter": JITTER, **changes, "dispatcher": dispatcher},
    )
    return config, *nnx.split(switch_layer(config, 3))


@functools.cache
def inputs():
    rng = np.random.default_rng(0)
    x_BLD = rng.normal(size=(B, L, D)).astype(np.float32)
    mask_BL = random_mask(rng, B, L)
    assert not mask_BL.all()
    weight_BLD = rng.normal(size=x_BLD.shape).astype(np.float32)
    return x_BLD, mask_BL, weight_BLD


@functools.cache
def ours(name, dispatcher, causal, room):
    """Output, statistics, and the gradients of a loss of both by the parameters and x."""
    config, graphdef, state = layer(name, dispatcher)
    x_BLD, mask_BL, weight_BLD = inputs()
    if config.switch.balance_by == "cost":
        room = expert_capacity(config.switch, S, train=True)
    groups = grouping(config, S, None if config.switch.dropless else room, causal)

    def loss(state, x_BLD, keys):
        y_BLD, routed = nnx.merge(graphdef, state)(x_BLD, mask_BL, groups, keys)
        stats = routed.stats
        total = jnp.sum(y_BLD * weight_BLD) + stats.balance_loss + 0.1 * stats.z_loss
        return total, (y_BLD, stats)

    grads, (y_BLD, stats) = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(
        state, x_BLD, noise(B)
    )
    return y_BLD, stats, by_name(grads[0]) | {"x": np.array(grads[1])}


def by_name(state):
    """The oracle's view of a layer's parameters."""
    leaves = {"/".join(path): param for path, param in nnx.to_flat_state(state["experts"])}
    arrays = {"router_DE": state["router"]["kernel_DE"], **leaves}
    return {name: np.array(param[...]) for name, param in arrays.items()}


def of_experts(arrays):
    """Each expert's matrices, in order, of arrays that are of one width each."""
    experts = {"router_DE": arrays["router_DE"]}
    for name in sorted(arrays):
        if "_E" in name:
            experts.setdefault(name.rpartition("/")[2], []).extend(arrays[name])
    return experts


def router_factor(config, noise_G):
    """What exploration multiplies the router's input by, [G, S, D]."""
    if config.exploration == "jitter":
        return noise_G.fold(0).uniform((S, D), 1.0 - JITTER, 1.0 + JITTER)
    if config.exploration == "input_dropout":
        return dropout(jnp.ones((G, S, D)), RATE, noise_G.fold(0))
    return jnp.ones((G, S, D))


def theirs(config, causal):
    """The layer by the oracle, as a function of parameters and x in one dict."""
    _, mask_BL, _ = inputs()
    noise_G = noise(B).regroup(G, L)
    factor_GSD = np.array(router_factor(config, noise_G), np.float64)
    draws = policies.draws(config, noise_G, S)
    policy = policies.policy_of(config)
    room = ROOM
    if config.balance_by == "cost":
        room = routing_oracle.capacities_by_cost(1.25, S, policies.widths_of(config), 1)
        assert room == [3, 3, 3, 1]
    if config.dropless:
        room = None

    def run(arrays):
        x_GSD, mask_GS = arrays["x"].reshape(G, S, D), mask_BL.reshape(G, S)
        y_GSD, stats = oracle.switch_layer(
            x_GSD, mask_GS, of_experts(arrays), policy, room, causal, x_GSD * factor_GSD, *draws
        )
        return y_GSD.reshape(B, L, D), stats

    return run


@pytest.mark.parametrize(("name", "dispatcher", "causal"), CASES)
def test_the_layer_equals_the_oracle(name, dispatcher, causal):
    config, _, state = layer(name, dispatcher)
    config = config.switch
    x_BLD, _, weight_BLD = inputs()
    y_BLD, stats, grads = ours(name, dispatcher, causal, ROOM)
    run = theirs(config, causal)
    arrays = {key: a.astype(np.float64) for key, a in (by_name(state) | {"x": x_BLD}).items()}
    expected, expected_stats = run(arrays)
    np.testing.assert_allclose(y_BLD, expected, rtol=1e-4, atol=1e-5)
    policies.same_stats(stats, expected_stats, rtol=1e-4, atol=1e-5)

    def loss(arrays):
        y_BLD, stats = run(arrays)
        return np.sum(y_BLD * weight_BLD) + stats.balance_loss + 0.1 * stats.z_loss

    # The slope along a random direction in each array, by central differences in float64.
    rng = np.random.default_rng(5)
    for key, array in arrays.items():
        way = rng.normal(size=array.shape)
        ends = [loss({**arrays, key: array + step * way}) for step in (1e-5, -1e-5)]
        slope = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose(np.sum(grads[key] * way), slope, rtol=1e-4, atol=1e-5)


def same(found, expected):
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", BY_EINSUM)
def test_dispatchers_agree(name):
    """Einsum and index on output, drops and every gradient."""
    same(*(ours(name, dispatcher, False, ROOM) for dispatcher in ("einsum", "index")))


@pytest.mark.parametrize("name", ["dropless switch", "dropless at random"])
def test_dropless_is_what_slots_for_all_give(name):
    """Where nothing is dropped, the ragged dispatcher agrees with the others."""
    same(ours(name, "index", False, S), ours(name, "ragged", False, ROOM))


@pytest.mark.parametrize(
    ("pools", "slots", "name", "dispatcher"),
    [(E, ROOM, "switch", "index"), (1, S, "dropless switch", "ragged")],
)
def test_pools_between_slots_and_none(pools, slots, name, dispatcher):
    """A pool for each expert drops what its slots do; one for all, with room, drops nothing."""
    found = ours(f"pools of {E // pools}", "ragged", False, slots)
    same(found, ours(name, dispatcher, False, ROOM))


def test_input_dropout_drops_the_router_input_alone():
    """A share `rate` of the router's input is zero, the rest scaled; experts see all of it."""
    config = with_switch(
        tiny_config(d_model=D), num_experts=1, exploration="input_dropout", router_dropout_rate=RATE
    )
    one = switch_layer(config, 0)
    # One expert: its gate is 1 whatever the router says, so the output is the expert's.
    x_BLD, mask_BL, _ = inputs()
    groups = grouping(config, S, S)
    calm, trained = (
        jax.jit(lambda x, keys=keys: one(x, mask_BL, groups, keys)[0])(x_BLD)
        for keys in (NO_NOISE, noise(B))
    )
    np.testing.assert_array_equal(calm, trained)
    one.router.kernel_DE[...] = jnp.eye(D)[:, :1]  # the logit is the first input
    logits = np.array(jax.jit(one.router)(jnp.ones((64, 64, D)), noise(64)))
    assert set(np.unique(logits)) == {np.float32(0), np.float32(1) / np.float32(1 - RATE)}
    # Four standard deviations of a share.
    assert np.mean(logits == 0) == pytest.approx(RATE, abs=4 * (RATE * (1 - RATE) / 4096) ** 0.5)


@pytest.mark.parametrize("exploration", ["argmax", "sample"])
def test_other_policies_leave_the_router_input_calm(exploration):
    config = with_switch(tiny_config(d_model=D), exploration=exploration, jitter=0.5)
    router = Router(config, config.switch, nnx.Rngs(params=0))
    x_BLD, _, _ = inputs()
    np.testing.assert_array_equal(router(x_BLD, noise(B)), router(x_BLD, NO_NOISE))
