"""The exchange of rows between the devices that share out the experts.

Rows on the way have the one layout [n, R]: from each of n devices room for R rows, all that it
has, since all may be meant for one.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from switchx.model.dispatch.gathers import rows


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
def send(x_RD: jax.Array, traffic: Traffic) -> jax.Array:
    """Sorted rows to their experts' devices: [n, R, D], row i of sender s at [s, i], then zeros."""
    return jax.lax.platform_dependent(x_RD, traffic, cpu=_send_padded, default=_send_ragged)


@jax.custom_vjp
def bring_back(y_nRD: jax.Array, traffic: Traffic) -> jax.Array:
    """The way back of `send`, and its transpose: [R, D], zeros where nothing was sent."""
    return jax.lax.platform_dependent(y_nRD, traffic, cpu=_back_padded, default=_back_ragged)


def _no_gradient(traffic: Traffic) -> Any:
    return jax.tree.map(lambda x: np.zeros(x.shape, jax.dtypes.float0), traffic)


send.defvjp(
    lambda x, traffic: (send(x, traffic), traffic),
    lambda traffic, dy: (bring_back(dy, traffic), _no_gradient(traffic)),
)
bring_back.defvjp(
    lambda y, traffic: (bring_back(y, traffic), traffic),
    lambda traffic, dx: (send(dx, traffic), _no_gradient(traffic)),
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
