"""Through slots: as many rows for each expert and group, so every shape is known."""

import abc
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp

from switchx.model.dispatch.dispatcher import ExpertNetworks, number_of
from switchx.model.noise import Noise, dropout
from switchx.model.remat import kept
from switchx.model.routing import Assignment, Capacity, Settings, Slots
from switchx.sharding import constrain


class SlotDispatcher(abc.ABC):
    """Two subclasses differ in how tokens get into slots and out; empty slots hold zeros."""

    dropless: ClassVar[bool] = False

    @abc.abstractmethod
    def dispatch(self, x_GSD: jax.Array, assignment: Assignment, slots: Slots) -> list[jax.Array]:
        """Returns the experts' inputs, of each width [G, E, C, D], in the dtype of `x`."""

    @abc.abstractmethod
    def combine(
        self, outputs: Sequence[jax.Array], assignment: Assignment, slots: Slots
    ) -> jax.Array:
        """Returns [G, S, D]: each token's kept outputs times their gates; zero where none is.

        `outputs`: of each width [G, E, C, D].
        """

    def check(self, settings: Settings) -> None:  # noqa: B027
        """Nothing: every policy goes through slots."""

    def __call__(
        self,
        x_GSD: jax.Array,
        assignment: Assignment,
        experts: Sequence[ExpertNetworks],
        capacity: Capacity | None,
        dropout_rate: float,
        noise: Noise,
    ) -> jax.Array:
        """See Dispatcher."""
        assert capacity is not None
        kernels = [networks.kernels() for networks in experts]
        slots = Slots.of(capacity, [*map(number_of, kernels)])
        with jax.named_scope("dispatch"):
            inputs = [kept(to_experts(x)) for x in self.dispatch(x_GSD, assignment, slots)]
        with jax.named_scope("experts"):
            outputs = [
                _computed(*own, dropout_rate, noise.fold(width) if width else noise)
                for width, own in enumerate(zip(experts, kernels, inputs, strict=True))
            ]
        with jax.named_scope("combine"):
            back = [
                kept(from_experts(y_EGCD, networks.output_axis))
                for networks, y_EGCD in zip(experts, outputs, strict=True)
            ]
            return self.combine(back, assignment, slots)


def _computed(
    networks: ExpertNetworks,
    kernels: dict[str, jax.Array],
    x_EGCD: jax.Array,
    dropout_rate: float,
    noise: Noise,
) -> jax.Array:
    """The outputs of the experts of one width, [E, G, C, D]; `noise`: keys per group."""

    def drop(h_EGCF: jax.Array) -> jax.Array:
        # The groups lead for their keys' sake only: the swaps fuse away.
        h_EGCF = dropout(h_EGCF.swapaxes(0, 1), dropout_rate, noise).swapaxes(0, 1)
        return constrain(h_EGCF, "expert", "expert_group", None, "mlp")

    return networks.compute(kernels, x_EGCD, slot_product, drop)


def slot_product(x_EGCD: jax.Array, kernel_EDF: jax.Array) -> jax.Array:
    """x kernel of every expert, [E, G, C, F]."""
    return jnp.einsum("egcd,edf->egcf", x_EGCD, kernel_EDF)


def to_experts(x_GECD: jax.Array) -> jax.Array:
    """[G, E, C, D] to [E, G, C, D] on the experts' devices.

    Constraining right before and right after makes it one all-to-all over the expert axis;
    a single constraint compiles to all-gathers.
    """
    x_GECD = constrain(x_GECD, "group", None, None, "embed")
    return constrain(x_GECD.swapaxes(0, 1), "expert", "expert_group", None, "embed")


def from_experts(y_EGCD: jax.Array, axis: str) -> jax.Array:
    """The way back: [E, G, C, D] to [G, E, C, D] on the groups' devices, one all-to-all.

    `axis` is the logical name of the last dimension.
    """
    y_EGCD = constrain(y_EGCD, "expert", "expert_group", None, axis)
    return constrain(y_EGCD.swapaxes(0, 1), "group", None, None, axis)
