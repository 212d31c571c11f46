"""Dispatch without slots: choices sorted by expert, each expert multiplying just its own rows.

With experts shared out over devices, each device sends every other the rows of its experts, and
gets their outputs back. Since all rows may be meant for one device, each has room for all rows of
all: n times its own, for n devices, most of it empty. Where pools of experts have slots, these
travel (pooled.py). Else training takes it as it is, which only few devices can; answering takes its
tokens in turns, which keeps the room within a bound.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from switchx.errors import UserError
from switchx.model.checks import only
from switchx.model.dispatch.dispatcher import (
    ExpertNetworks,
    kernel_specs,
    number_of,
    on_devices,
    shards_of,
)
from switchx.model.dispatch.exchange import Traffic, bring_back, send
from switchx.model.dispatch.gathers import gather_outputs, gather_tokens
from switchx.model.dispatch.pooled import through_pools
from switchx.model.dispatch.sorted_experts import SortedExperts, argsort, sizes
from switchx.model.dispatch.stacked import Kernels
from switchx.model.noise import NO_NOISE, Noise
from switchx.model.routing import Assignment, Capacity, Pools, Settings
from switchx.sharding import spec

# Of answering: the most room, as a multiple of a device's own rows, and rows that are few enough
# to have room for however many they are. Decoding, whose rows are single tokens, so has one turn.
_MOST_ROOM, _FEW_ROWS = 4, 2048


@dataclasses.dataclass(frozen=True)
class RaggedDispatcher:
    """See above.

    Attributes:
      bounded: whether tokens go in turns where the experts are on many devices.
    """

    bounded: bool = False

    dropless: ClassVar[bool] = True

    def check(self, settings: Settings) -> None:
        """No expert is full: policies about that are refused."""
        neutral = {"reroute_rounds": 0, "encoder_routing": "tokens_choose"}
        only(settings, "dispatcher='ragged'", neutral, "whose experts have no slots of their own")
        if settings.ragged_pools is None:
            in_order = {"priority": "sequence"}
            only(settings, "dispatcher='ragged'", in_order, "where without RAGGED_POOLS all fit in")

    def in_stacks(
        self, capacity: Capacity | None, numbers: Sequence[int], choices: int, groups: int
    ) -> bool:
        """All rows are sorted; but a gradient is written once, and so not by turns."""
        return not self.bounded

    def __call__(
        self,
        x_GSD: jax.Array,
        assignment: Assignment,
        experts: Sequence[ExpertNetworks],
        capacity: Capacity | None,
        dropout_rate: float,
        noise: Noise,
    ) -> jax.Array:
        """See Dispatcher.

        Raises:
          UserError: experts or groups cannot be shared out over the mesh in force.
        """
        mesh = jax.sharding.get_abstract_mesh()
        kernels = [networks.kernels() for networks in experts]
        if mesh.empty or mesh.size == 1:
            return _Device((*experts,), dropout_rate)(x_GSD, assignment, kernels, noise)
        n = mesh.shape["expert"]
        for E in map(number_of, kernels):
            if E % n:
                named = "NUM_EXPERTS" if len(kernels) == 1 else "experts of one width, number"
                raise UserError(f"{named}={E} must be a multiple of MESH_EXPERT={n}.")
        shards = shards_of(x_GSD.shape[0])
        rows = assignment.expert_GSJ.size // shards
        tokens = x_GSD.shape[0] * x_GSD.shape[1] // shards
        turns = turns_of(tokens, rows, n) if self.bounded else 1
        pools = capacity if isinstance(capacity, Pools) and n > 1 else None
        if pools and pools.number % n:
            raise UserError(f"RAGGED_POOLS={pools.number} must be a multiple of MESH_EXPERT={n}.")
        device = _Device((*experts,), dropout_rate, n, mesh.shape["model"], turns, pools)
        groups = spec("group")
        in_specs = (groups, groups, [*map(kernel_specs, experts, kernels)], groups)
        on_mesh = on_devices(device, in_specs, "group", None, experts[0].output_axis)
        return on_mesh(x_GSD, assignment, kernels, noise)


def for_answers() -> RaggedDispatcher:
    """What decoding and scoring use on every mesh and platform, whatever trained the model.

    Nothing may be dropped, and of all that drops nothing this needs the least room: slots for all
    tokens with each expert are a row per token and expert, this a row per token and device, and
    that in turns. How rows travel and are multiplied is chosen by platform where it is done:
    `exchange.send` (a CPU has no ragged exchange) and `sorted_product`.
    """
    return RaggedDispatcher(bounded=True)


def turns_of(tokens: int, rows: int, n: int) -> int:
    """In how many equal parts a device's tokens go, so that the room for received rows is bounded.

    Args:
      rows: choices of these tokens; each of n devices may send as many.
    """
    wanted = math.ceil(n * rows / max(_MOST_ROOM * rows, _FEW_ROWS))
    return next(turns for turns in range(wanted, tokens + 1) if tokens % turns == 0)


@dataclasses.dataclass(frozen=True)
class _Device:
    """What one device does: its groups' tokens, its share of the experts and of their widths.

    It has the same share of the experts of each width.
    """

    experts: tuple[ExpertNetworks, ...]
    dropout_rate: float
    num_expert: int = 1
    num_model: int = 1
    turns: int = 1
    pools: Pools | None = None

    def __call__(
        self,
        x_GSD: jax.Array,
        assignment: Assignment,
        kernels: Sequence[Kernels],
        noise: Noise,
    ) -> jax.Array:
        G, S, D = x_GSD.shape
        J = assignment.expert_GSJ.shape[-1]
        if not self.dropout_rate:
            noise = NO_NOISE
        noise_R = noise.per_choice(S, J)
        arguments = (
            x_GSD.reshape(G * S, D),
            jax.tree.map(lambda x: x.reshape(G * S, J), assignment),
            noise_R,
        )
        if self.pools:
            own, n = self._own(sum(self.pools.experts), G * S * J), self.num_expert
            y_TD = through_pools(own, kernels, self.pools, n, x_GSD, assignment, noise_R)
        elif self.turns == 1:
            y_TD = self._tokens(kernels, *arguments)
        else:
            split = lambda x: x.reshape(self.turns, -1, *x.shape[1:])  # noqa: E731
            y_TD = jax.lax.map(
                lambda part: self._tokens(kernels, *part), jax.tree.map(split, arguments)
            ).reshape(G * S, -1)
        return y_TD.reshape(G, S, -1)

    def _tokens(
        self,
        kernels: Sequence[Kernels],
        x_TD: jax.Array,
        assignment_TJ: Assignment,
        noise_R: Noise,
    ) -> jax.Array:
        """The outputs of T tokens, whose R choices have a key of `noise_R` each."""
        T, J = assignment_TJ.expert_GSJ.shape
        order_E = _by_device(
            [self.num_expert * own for own in map(number_of, kernels)], self.num_expert
        )
        with jax.named_scope("dispatch"):
            choice_R, place_R, size_E = _sort(assignment_TJ, order_E)
            choice_1R, place_1TJ = choice_R[None], place_R.reshape(1, T, J)
            x_RD = gather_tokens(x_TD[None], choice_1R, place_1TJ)[0]
        noise_R = noise_R.take(jnp.minimum(choice_R, T * J - 1))
        own = self._own(size_E.shape[0], T * J)
        compute = self._compute_there if self.num_expert > 1 else own.of_sorted_rows
        y_1RD = compute(kernels, x_RD, size_E, noise_R)[None]
        with jax.named_scope("combine"):
            return gather_outputs(y_1RD, assignment_TJ.gate_GSJ[None], place_1TJ, choice_1R)[0]

    def _own(self, E: int, rows: int) -> SortedExperts:
        """This device's experts, where it and each that sends to it has so many rows for all E."""
        share = -(-rows * self.num_expert // E)
        return SortedExperts(self.experts, self.dropout_rate, share, self.num_model)

    def _compute_there(
        self, kernels: Sequence[Kernels], x_RD: jax.Array, size_E: jax.Array, noise_R: Noise
    ) -> jax.Array:
        """Sends each row to the device of its expert, computes there, and brings it back."""
        n, R, E = self.num_expert, x_RD.shape[0], size_E.shape[0]
        traffic = Traffic.of(size_E, n)
        with jax.named_scope("dispatch"):
            x_ND = send(x_RD, traffic).reshape(n * R, -1)
            if not noise_R.silent:
                keys_R2 = jnp.stack([noise_R.low_B, noise_R.high_B], axis=1)
                low_N, high_N = send(keys_R2, traffic).reshape(n * R, 2).T
                noise_R = Noise(low_N, high_N, noise_R.site)
        mine_ne = jax.lax.dynamic_slice_in_dim(
            traffic.size_nE, traffic.me * (E // n), E // n, axis=1
        )
        # Each sender's rows come sorted by expert; experts want theirs of all senders together.
        y_ND = self._own(E, R).of_rows(kernels, x_ND, _expert_of_row(mine_ne, R), noise_R)
        with jax.named_scope("combine"):
            return bring_back(y_ND.reshape(n, R, -1), traffic)


def _by_device(experts: Sequence[int], n: int) -> np.ndarray:
    """The order [E] in which n devices have the experts: the first its share of each width, ...

    `experts`: how many there are of each width.
    """
    number_E = np.arange(sum(experts), dtype=np.int32)
    shares = [own.reshape(n, -1) for own in np.split(number_E, np.cumsum(experts[:-1]))]
    return np.concatenate(shares, axis=1).reshape(-1)


def _sort(assignment_TJ: Assignment, order_E: np.ndarray) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Choices by expert, these in the order `order_E`, and in order of tokens within one.

    Returns:
      The choice at each sorted place, [R], R where there is none; the place of each choice, [R],
      R if it is not kept; and how many each expert has, [E] in the same order.
    """
    E, expert_TJ = len(order_E), assignment_TJ.expert_GSJ
    if not np.array_equal(order_E, np.arange(E)):
        expert_TJ = jnp.asarray(np.argsort(order_E).astype(np.int32))[expert_TJ]
    expert_R = jnp.where(assignment_TJ.kept_GSJ, expert_TJ, E).reshape(-1)
    R = expert_R.shape[0]
    choice_R, position_R = argsort(expert_R)
    size_E = sizes(expert_R, E)
    choice_R = jnp.where(jnp.arange(R) < size_E.sum(), choice_R, R)
    return choice_R, jnp.where(expert_R < E, position_R, R), size_E


def _expert_of_row(size_ne: jax.Array, R: int) -> jax.Array:
    """Of each received row [n * R], its expert among this device's; their number where empty."""
    end_ne = jnp.cumsum(size_ne, axis=1)
    before_nRe = end_ne[:, None, :] <= jnp.arange(R)[None, :, None]
    return jnp.sum(before_nRe, axis=-1, dtype=jnp.int32).reshape(-1)
