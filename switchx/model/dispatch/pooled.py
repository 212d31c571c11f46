"""Through the slots of pools of experts, so that the room for received rows is bounded.

Each pool's experts are on one device, and each group of tokens has as many slots in each pool,
which routing has given out. So one all-to-all takes all slots there, and of what it brings a device
sorts rows by expert: with a slot travels the number of its expert, as no pool knows whose it is.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from switchx.model.dispatch.gathers import gather_outputs, gather_tokens
from switchx.model.dispatch.places import indices
from switchx.model.dispatch.sorted_experts import SortedExperts
from switchx.model.dispatch.stacked import Kernels
from switchx.model.noise import Noise
from switchx.model.remat import kept
from switchx.model.routing import Assignment, Pools, Slots, queues


def through_pools(
    own: SortedExperts,
    kernels: Sequence[Kernels],
    pools: Pools,
    n: int,
    x_GSD: jax.Array,
    assignment: Assignment,
    noise_R: Noise,
) -> jax.Array:
    """Each token's kept experts' outputs times their gates, summed: [T, D].

    Args:
      own, kernels: this device's experts, of n that share out all of them.
      x_GSD, assignment: its own groups of tokens.
      noise_R: a key for each of their choices, [T * J].
    """
    G, S, D = x_GSD.shape
    T, J = G * S, assignment.expert_GSJ.shape[-1]
    E = sum(pools.experts)
    with jax.named_scope("dispatch"):
        pool_GSJ, number = queues(pools, assignment.expert_GSJ, E)
        queued = dataclasses.replace(assignment, expert_GSJ=pool_GSJ)
        place_1TJ, choice_1Q = indices(queued, Slots(((number, pools.slots),)), 1)
        x_1QD = gather_tokens(x_GSD.reshape(1, T, D), choice_1Q, place_1TJ)
        x_QD = kept(_exchanged(x_1QD[0]))
        expert_R = _there(pools, n, assignment.expert_GSJ).reshape(T * J)
        expert_Q, noise_Q = _along(expert_R, noise_R, choice_1Q[0], E // n)
    y_QD = own.of_rows(kernels, x_QD, expert_Q, noise_Q)
    with jax.named_scope("combine"):
        y_1QD = kept(_exchanged(y_QD))[None]
        gate_1TJ = assignment.gate_GSJ.reshape(1, T, J)
        return gather_outputs(y_1QD, gate_1TJ, place_1TJ, choice_1Q)[0]


def _exchanged(x_Q: jax.Array) -> jax.Array:
    """Slots [pools, G, C] of this device's groups to [senders, ...] of its pools, or back."""
    return jax.lax.all_to_all(x_Q, "expert", 0, 0, tiled=True)


def _there(pools: Pools, n: int, expert: jax.Array) -> jax.Array:
    """The numbers of these experts among those of their devices, width by width."""
    if len(pools.experts) == 1:
        return expert % (pools.experts[0] // n)
    shares, first = [number // n for number in pools.experts], 0
    each = []
    for number, share in zip(pools.experts, shares, strict=True):
        each.append(first + np.arange(number, dtype=np.int32) % share)
        first += share
    return jnp.asarray(np.concatenate(each))[expert]


def _along(
    expert_R: jax.Array, noise_R: Noise, choice_Q: jax.Array, none: int
) -> tuple[jax.Array, Noise]:
    """What travels along: the expert of each received slot, `none` if it is empty, and its key."""
    expert_Q = jnp.take(expert_R, choice_Q, mode="fill", fill_value=none)
    if noise_R.silent:
        return kept(_exchanged(expert_Q)), noise_R
    noise_Q = noise_R.take(jnp.minimum(choice_Q, expert_R.shape[0] - 1))
    sent_Q3 = jnp.stack([expert_Q.astype(jnp.uint32), noise_Q.low_B, noise_Q.high_B], axis=1)
    expert_Q, low_Q, high_Q = kept(_exchanged(sent_Q3)).T
    return expert_Q.astype(jnp.int32), Noise(low_Q, high_Q, noise_R.site)
