"""Dropless dispatch: choices sorted by expert, each expert multiplying just its own rows.

With experts shared out over devices, each device sends every other the rows of its experts, and
gets their outputs back. The rows on the way have the one layout [n, R]: from each of n devices
room for R rows, all that it has, since all may be meant for one.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from switchx.model.dispatch import gather_outputs, gather_tokens, rows
from switchx.model.noise import Noise, dropout
from switchx.model.products import sorted_product
from switchx.model.routing import Assignment
from switchx.sharding import LOGICAL_AXES, spec


def ragged(
    x_GSD: jax.Array,
    assignment: Assignment,
    experts: Any,
    dropout_rate: float,
    noise_G: Noise | None,
) -> jax.Array:
    """Each token's kept experts' outputs times their gates, summed: [G, S, D].

    Args:
      experts: a module with `kernels`, `compute`, `kernel_axes` and `output_axis`.
      noise_G: keys of the experts' dropout.
    """
    if not dropout_rate:
        noise_G = None
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return _Device(experts, dropout_rate)(x_GSD, assignment, experts.kernels(), noise_G)
    device = _Device(experts, dropout_rate, mesh.shape["expert"], mesh.shape["model"])
    groups = spec("group")
    kernels = {name: spec(*axes) for name, axes in experts.kernel_axes.items()}
    return jax.shard_map(
        device,
        in_specs=(groups, groups, kernels, groups),
        out_specs=spec("group", None, experts.output_axis),
        check_vma=False,
    )(x_GSD, assignment, experts.kernels(), noise_G)


@dataclasses.dataclass(frozen=True)
class _Device:
    """What one device does: its groups' tokens, its share of the experts and of their widths."""

    experts: Any
    dropout_rate: float
    num_expert: int = 1
    num_model: int = 1

    def __call__(
        self,
        x_GSD: jax.Array,
        assignment: Assignment,
        kernels: dict[str, jax.Array],
        noise_G: Noise | None,
    ) -> jax.Array:
        G, S, D = x_GSD.shape
        J = assignment.expert_GSJ.shape[-1]
        E = self.num_expert * next(iter(kernels.values())).shape[0]
        T, R = G * S, G * S * J
        choice_R, place_R, size_E = _sort(assignment, E)
        choice_1R, place_1TJ = choice_R[None], place_R.reshape(1, T, J)
        x_RD = gather_tokens(x_GSD.reshape(1, T, D), choice_1R, place_1TJ)[0]
        noise_R = None
        if noise_G is not None:
            noise_R = noise_G.per_choice(S, J).take(jnp.minimum(choice_R, R - 1))
        compute = self._compute if self.num_expert == 1 else self._compute_there
        y_1RD = compute(kernels, x_RD, size_E, noise_R)[None]
        y_TD = gather_outputs(y_1RD, assignment.gate_GSJ.reshape(1, T, J), place_1TJ, choice_1R)[0]
        if self.num_model > 1 and LOGICAL_AXES[self.experts.output_axis] is None:
            y_TD = jax.lax.psum(y_TD, "model")  # each device summed over its share of d_ff
        return y_TD.reshape(G, S, -1)

    def _compute(
        self,
        kernels: dict[str, jax.Array],
        x_RD: jax.Array,
        size_E: jax.Array,
        noise_R: Noise | None,
    ) -> jax.Array:
        """The outputs of rows that are sorted by expert, `size_E` for each."""

        def drop(h_RF: jax.Array) -> jax.Array:
            if noise_R is None:
                return h_RF
            share = jax.lax.axis_index("model") if self.num_model > 1 else 0
            return dropout(h_RF, self.dropout_rate, noise_R.shifted(share * h_RF.shape[1]))

        def product(x_RD: jax.Array, kernel_EDF: jax.Array) -> jax.Array:
            return sorted_product(x_RD, kernel_EDF, size_E)

        return self.experts.compute(kernels, x_RD, product, drop)

    def _compute_there(
        self,
        kernels: dict[str, jax.Array],
        x_RD: jax.Array,
        size_E: jax.Array,
        noise_R: Noise | None,
    ) -> jax.Array:
        """Sends each row to the device of its expert, computes there, and brings it back."""
        n, R = self.num_expert, x_RD.shape[0]
        traffic = Traffic.of(size_E, n)
        received_ND = _send(x_RD, traffic).reshape(n * R, -1)
        mine_ne = jax.lax.dynamic_slice_in_dim(
            traffic.size_nE, traffic.me * (size_E.shape[0] // n), size_E.shape[0] // n, axis=1
        )
        order_N, place_N = _argsort(_expert_of_row(mine_ne, R))
        if noise_R is not None:
            keys_R2 = jnp.stack([noise_R.low_B, noise_R.high_B], axis=1)
            low_N, high_N = _send(keys_R2, traffic).reshape(n * R, 2)[order_N].T
            noise_R = Noise(low_N, high_N, noise_R.site)
        x_ND = _permute(received_ND, order_N, place_N)
        y_ND = self._compute(kernels, x_ND, mine_ne.sum(axis=0), noise_R)
        return _bring_back(_permute(y_ND, place_N, order_N).reshape(n, R, -1), traffic)


def _sort(assignment: Assignment, E: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Choices by expert, in order of tokens within one.

    Returns:
      The choice at each sorted place, [R], R where there is none; the place of each choice, [R],
      R if it is not kept; and how many each expert has, [E].
    """
    expert_R = jnp.where(assignment.kept_GSJ, assignment.expert_GSJ, E).reshape(-1)
    R = expert_R.shape[0]
    choice_R, position_R = _argsort(expert_R)
    size_E = jnp.sum(expert_R[:, None] == jnp.arange(E), axis=0, dtype=jnp.int32)
    choice_R = jnp.where(jnp.arange(R) < size_E.sum(), choice_R, R)
    return choice_R, jnp.where(expert_R < E, position_R, R), size_E


def _argsort(key_R: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The stable order of the keys, and its inverse."""
    number_R = jnp.arange(key_R.shape[0], dtype=jnp.int32)
    _, order_R = jax.lax.sort_key_val(key_R, number_R, is_stable=True)
    return order_R, jnp.zeros_like(order_R).at[order_R].set(number_R, unique_indices=True)


def _expert_of_row(size_ne: jax.Array, R: int) -> jax.Array:
    """Of each received row [n * R], its expert among this device's; their number where empty."""
    end_ne = jnp.cumsum(size_ne, axis=1)
    before_nRe = end_ne[:, None, :] <= jnp.arange(R)[None, :, None]
    return jnp.sum(before_nRe, axis=-1, dtype=jnp.int32).reshape(-1)


@jax.custom_vjp
def _permute(x_ND: jax.Array, order_N: jax.Array, place_N: jax.Array) -> jax.Array:
    """x[order], whose transpose is the gather by the inverse, `place_N`."""
    return x_ND[order_N]


_permute.defvjp(
    lambda x, order, place: (x[order], place), lambda place, dy: (dy[place], None, None)
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Traffic:
    """How many rows each of n devices sends to each: all of it known to all of them.

    Attributes:
      size_nE: rows that a sender has for an expert.
      size_nn: rows that a sender has for a receiver, [sender, receiver].
      start_nn: where they begin among the sender's sorted rows.
      me: this device's number.
    """

    size_nE: jax.Array
    size_nn: jax.Array
    start_nn: jax.Array
    me: jax.Array

    @classmethod
    def of(cls, size_E: jax.Array, n: int) -> "Traffic":
        size_nE = jax.lax.all_gather(size_E, "expert")
        size_nn = size_nE.reshape(n, n, -1).sum(axis=-1, dtype=jnp.int32)
        start_nn = jnp.cumsum(size_nn, axis=1, dtype=jnp.int32) - size_nn
        return cls(size_nE, size_nn, start_nn, jax.lax.axis_index("expert"))


@jax.custom_vjp
def _send(x_RD: jax.Array, traffic: Traffic) -> jax.Array:
    """Sorted rows to their experts' devices: [n, R, D], row i of sender s at [s, i], then zeros."""
    return jax.lax.platform_dependent(x_RD, traffic, cpu=_send_padded, default=_send_ragged)


@jax.custom_vjp
def _bring_back(y_nRD: jax.Array, traffic: Traffic) -> jax.Array:
    """The way back of `_send`, and its transpose: [R, D], zeros where nothing was sent."""
    return jax.lax.platform_dependent(y_nRD, traffic, cpu=_back_padded, default=_back_ragged)


def _no_gradient(traffic: Traffic) -> Any:
    return jax.tree.map(lambda x: np.zeros(x.shape, jax.dtypes.float0), traffic)


_send.defvjp(
    lambda x, traffic: (_send(x, traffic), traffic),
    lambda traffic, dy: (_bring_back(dy, traffic), _no_gradient(traffic)),
)
_bring_back.defvjp(
    lambda y, traffic: (_bring_back(y, traffic), traffic),
    lambda traffic, dx: (_send(dx, traffic), _no_gradient(traffic)),
)


def _send_ragged(x_RD: jax.Array, traffic: Traffic) -> jax.Array:
    size_nn, start_nn, me = traffic.size_nn, traffic.start_nn, traffic.me
    n, R = size_nn.shape[0], x_RD.shape[0]
    room_ND = jnp.zeros((n * R, x_RD.shape[1]), x_RD.dtype)
    at_n = jnp.full((n,), me * R, jnp.int32)
    sent = (start_nn[me], size_nn[me], at_n, size_nn[:, me])
    return jax.lax.ragged_all_to_all(x_RD, room_ND, *sent, axis_name="expert").reshape(n, R, -1)


def _back_ragged(y_nRD: jax.Array, traffic: Traffic) -> jax.Array:
    size_nn, start_nn, me = traffic.size_nn, traffic.start_nn, traffic.me
    n, R, D = y_nRD.shape
    room_RD = jnp.zeros((R, D), y_nRD.dtype)
    from_n = jnp.arange(n, dtype=jnp.int32) * R
    sent = (from_n, size_nn[:, me], start_nn[:, me], size_nn[me])
    return jax.lax.ragged_all_to_all(y_nRD.reshape(n * R, D), room_RD, *sent, axis_name="expert")


# A CPU has no ragged exchange, so there the room for all rows travels, filled or not.


def _send_padded(x_RD: jax.Array, traffic: Traffic) -> jax.Array:
    size_nn, start_nn, me = traffic.size_nn, traffic.start_nn, traffic.me
    R = x_RD.shape[0]
    number_R = jnp.arange(R)
    index_nR = start_nn[me][:, None] + number_R
    index_nR = jnp.where(number_R < size_nn[me][:, None], index_nR, R)
    return jax.lax.all_to_all(rows(x_RD, index_nR), "expert", 0, 0)


def _back_padded(y_nRD: jax.Array, traffic: Traffic) -> jax.Array:
    size_nn, start_nn, me = traffic.size_nn, traffic.start_nn, traffic.me
    n, R, D = y_nRD.shape
    y_nRD = jax.lax.all_to_all(y_nRD, "expert", 0, 0)
    end_n = start_nn[me] + size_nn[me]
    receiver_R = jnp.sum(end_n[None, :] <= jnp.arange(R)[:, None], axis=1)
    index_R = receiver_R * R + jnp.arange(R) - start_nn[me][jnp.minimum(receiver_R, n - 1)]
    return rows(y_nRD.reshape(n * R, D), jnp.where(receiver_R < n, index_R, n * R))
