"""The routing policies that tests go through, and what the oracle calls them."""

import functools
from typing import Any

import jax
import numpy as np

from switchx.model import Assignment, Noise, RoutingStats, SwitchConfig
from switchx.model.routing import Tokens
from tests.helpers import with_room
from tests.model import routing_oracle as oracle

# Settings of SwitchConfig. The threshold lies where random gates fall on both sides.
_SECOND = dict(top_k=2, second_threshold=0.4)
POLICIES: dict[str, dict[str, Any]] = {
    "switch": {},
    "sample": dict(exploration="sample"),
    "by gate": dict(priority="gate"),
    "by gate, sampled": dict(priority="gate", exploration="sample"),
    "top 2": dict(top_k=2),
    "top 2, sampled": dict(top_k=2, exploration="sample"),
    "top 2, by gate": dict(top_k=2, priority="gate"),
    "first of top 2": dict(top_k=2, second_policy="never"),
    "above a threshold": dict(second_policy="threshold", **_SECOND),
    "at random": dict(second_policy="random", **_SECOND),
    "at random, by gate": dict(second_policy="random", priority="gate", **_SECOND),
    "top 3 at random": dict(second_policy="random", top_k=3, second_threshold=0.4),
    "one more round": dict(reroute_rounds=1),
    "one more round, sampled": dict(reroute_rounds=1, exploration="sample"),
    "two more rounds, by gate": dict(reroute_rounds=2, priority="gate"),
    "experts choose": dict(encoder_routing="experts_choose"),
}
# Without a capacity, by the ragged dispatcher.
DROPLESS: dict[str, dict[str, Any]] = {
    f"dropless {name}": dict(dispatcher="ragged", **POLICIES[name])
    for name in ("switch", "sample", "top 2", "first of top 2", "above a threshold", "at random")
}
# Of pools of experts that share their slots, by the ragged dispatcher too.
POOLED: dict[str, dict[str, Any]] = {
    f"pools, {name}": dict(dispatcher="ragged", ragged_pools=2, **POLICIES[name])
    for name in ("switch", "top 2, by gate", "at random")
}
# Those that draw more than the router's input.
RANDOM = [
    name
    for name, changes in {**POLICIES, **DROPLESS, **POOLED}.items()
    if changes.get("exploration") == "sample" or changes.get("second_policy") == "random"
]
# What the decoder does otherwise than the encoder: nothing may depend on later tokens.
CAUSAL = ["top 2", "by gate", "at random, by gate", "one more round", "experts choose"]
CAUSAL += ["pools, at random"]


def fits(changes: dict[str, Any], experts: int) -> bool:
    """Whether so few experts allow the policy."""
    if experts % changes.get("ragged_pools", 1):
        return False
    return max(changes.get("top_k", 1), changes.get("reroute_rounds", 0) + 1) <= experts


def widths_of(config: SwitchConfig) -> tuple[int, ...]:
    """Of each expert, where they have several."""
    return tuple(width for number, width in config.expert_widths or () for _ in range(number))


def pools_of(config: SwitchConfig) -> tuple[int, ...]:
    """The pool of each expert: of each width the first pool has the first."""
    pools, found = config.ragged_pools, []
    for number, _ in config.expert_widths or ((config.num_experts, 0),):
        for pool in range(pools):
            found += [pool] * (number // pools)
    return tuple(found)


def policy_of(config: SwitchConfig) -> oracle.Policy:
    return oracle.Policy(
        top_k=config.top_k,
        second=config.second_policy,
        threshold=config.second_threshold,
        by_gate=config.priority == "gate",
        rounds=config.reroute_rounds,
        experts_choose=config.encoder_routing == "experts_choose",
        cost_E=widths_of(config) if config.balance_by == "cost" else None,
        pool_E=pools_of(config) if config.ragged_pools else None,
    )


@functools.partial(jax.jit, static_argnums=1)
def _uniform(noise_G: Noise, shape: tuple[int, ...]) -> jax.Array:
    return noise_G.uniform(shape, 0.0, 1.0)


def draws(
    config: SwitchConfig, noise_G: Noise, S: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The oracle's random numbers: Gumbel [G, S, E] if choices are sampled, uniform [G, S, J]."""
    if noise_G.silent:
        return None, None
    uniform_GSJ = np.array(_uniform(noise_G.fold(3), (S, config.top_k)))
    if config.exploration != "sample":
        return None, uniform_GSJ
    uniform_GSE = np.array(_uniform(noise_G.fold(2), (S, config.num_experts)))
    return oracle.gumbel(uniform_GSE), uniform_GSJ


def route(
    config: SwitchConfig,
    logits_GSE: jax.Array,
    mask_GS: jax.Array,
    capacity: int | None,
    causal: bool,
    noise_G: Noise,
) -> tuple[Assignment, RoutingStats]:
    """As a switch layer routes by these logits."""
    score_GSE = config.explorer.scores(logits_GSE, noise_G)
    tokens = Tokens(logits_GSE, score_GSE, mask_GS, noise_G)
    return config.policy(causal).route(tokens, with_room(config, capacity))


def routed(
    config: SwitchConfig,
    logits_GSE: np.ndarray,
    mask_GS: np.ndarray,
    capacity: int | None,
    causal: bool,
    noise_G: Noise,
) -> tuple[list[oracle.Routed], oracle.Stats]:
    """`route` by the oracle."""
    G, S, _ = logits_GSE.shape
    gumbel_GSE, uniform_GSJ = draws(config, noise_G, S)
    policy = policy_of(config)
    found = []
    for g in range(G):
        random = [None if numbers is None else numbers[g] for numbers in (gumbel_GSE, uniform_GSJ)]
        found.append(oracle.route(logits_GSE[g], mask_GS[g], policy, capacity, causal, *random))
    stats = oracle.mean_stats(list(zip(logits_GSE, mask_GS, found, strict=True)))
    return found, stats


def same_stats(found: Any, expected: oracle.Stats, rtol: float = 2e-5, atol: float = 2e-6) -> None:
    """Fails unless all fields of a RoutingStats are those of the oracle, which has no tally."""
    found = jax.device_get(found)
    assert vars(found).keys() - {"tally"} == vars(expected).keys()
    for name, value in vars(expected).items():
        np.testing.assert_allclose(getattr(found, name), value, rtol=rtol, atol=atol, err_msg=name)
