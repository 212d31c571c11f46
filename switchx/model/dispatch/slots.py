"""Through slots: as many rows for each expert and group, so every shape is known.

Slots lie in the one order [P, E, R, D] on their way to the experts and back: P devices that share
out the groups, and of each expert R = G/P * C rows, those of the device's first group before those
of its second. So neither the exchange nor the experts' products turn any array: what a device sends
to another lies together, and one product has all rows of an expert.
"""

import abc
from collections.abc import Callable, Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

from switchx.model.dispatch.dispatcher import (
    ExpertNetworks,
    Operations,
    number_of,
    shards_of,
)
from switchx.model.dispatch.packed import computed_packed, packed_shares
from switchx.model.dispatch.places import filled_slots
from switchx.model.dispatch.stacked import Kernels, stacked_in
from switchx.model.noise import Noise, dropout
from switchx.model.product import product
from switchx.model.remat import kept
from switchx.model.routing import Assignment, Capacity, Pools, Settings, Slots
from switchx.sharding import constrain, platform, spec


class SlotDispatcher(abc.ABC):
    """Two subclasses differ in how tokens get into slots and out.

    Both work on what one device has, its groups in one line with P devices in front.
    """

    dropless: ClassVar[bool] = False

    @abc.abstractmethod
    def dispatch(
        self, x_GSD: jax.Array, assignment: Assignment, slots: Slots, P: int
    ) -> list[jax.Array]:
        """Returns the experts' inputs, of each width [P, E, R, D], in the dtype of `x`.

        What empty slots hold is any finite number: nothing comes back from them.
        """

    @abc.abstractmethod
    def combine(
        self, outputs: Sequence[jax.Array], assignment: Assignment, slots: Slots
    ) -> jax.Array:
        """Returns [G, S, D]: each token's kept outputs times their gates; zero where none is.

        `outputs`: of each width [P, E, R, D]. The gradients of empty slots are zeros.
        """

    def check(self, settings: Settings) -> None:  # noqa: B027
        """Nothing: every policy goes through slots."""

    def in_stacks(
        self, capacity: Capacity | None, numbers: Sequence[int], choices: int, groups: int
    ) -> bool:
        """Where the filled slots of all experts are sorted."""
        assert isinstance(capacity, int | Slots)
        return all(packed_shares(Slots.of(capacity, numbers), choices, groups, in_stacks=True))

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
        assert not isinstance(capacity, Pools)
        kernels = [networks.kernels() for networks in experts]
        slots = Slots.of(capacity, [*map(number_of, kernels)])
        G, S, J = assignment.slot_GSJ.shape
        in_stacks = bool(stacked_in(kernels))
        P, shares = shards_of(G), packed_shares(slots, S * J, G, in_stacks)
        with jax.named_scope("dispatch"):
            inputs = [kept(to_experts(x)) for x in self.dispatch(x_GSD, assignment, slots, P)]
            filled: Sequence[jax.Array | None] = [None] * len(shares)
            if any(shares):
                filled = [*map(_marks_to_experts, filled_slots(assignment, slots, P))]
        with jax.named_scope("experts"):
            outputs = []
            for width, (_, C) in enumerate(slots.by_width):
                own = experts[width], kernels[width], inputs[width], filled[width], shares[width]
                keys = noise.fold(width) if width else noise
                outputs.append(_computed(*own, C, dropout_rate, keys))
        with jax.named_scope("combine"):
            back = [
                kept(from_experts(y_EPRD, networks.output_axis))
                for networks, y_EPRD in zip(experts, outputs, strict=True)
            ]
            return self.combine(back, assignment, slots)


def _computed(
    networks: ExpertNetworks,
    kernels: Kernels,
    x_EPRD: jax.Array,
    filled_EPR: jax.Array | None,
    share: int | None,
    C: int,
    dropout_rate: float,
    noise: Noise,
) -> jax.Array:
    """The outputs of the experts of one width, [E, P, R, D]; `noise`: keys per group."""
    if share is not None and filled_EPR is not None:
        keys_EPR = _per_slot(noise, filled_EPR.shape, _interim_width(networks, kernels), C)
        marked = x_EPRD, filled_EPR, share
        return computed_packed(networks, kernels, *marked, dropout_rate, keys_EPR)

    def drop(h_EPRF: jax.Array) -> jax.Array:
        h_EPRF = dropout(
            h_EPRF, dropout_rate, _per_slot(noise, h_EPRF.shape[:3], h_EPRF.shape[3], C)
        )
        return constrain(h_EPRF, "expert", "expert_group", None, "mlp")

    return networks.compute(kernels, x_EPRD, Operations(slot_product, drop))


def _per_slot(noise: Noise, slots: Sequence[int], F: int, C: int) -> Noise:
    """A key for each slot [E, P, R]: its F numbers are its share of its group's [E, C, F]."""
    if noise.silent:
        return noise
    E, P, R = slots
    row_R = jnp.arange(R, dtype=jnp.uint32)
    expert_E11 = jnp.arange(E, dtype=jnp.uint32)[:, None, None]
    group_PR = jnp.arange(P, dtype=jnp.uint32)[:, None] * jnp.uint32(R // C) + row_R // C
    own_1PR = noise.take(group_PR[None])
    return own_1PR.shifted((expert_E11 * C + row_R % C) * jnp.uint32(F))


def _interim_width(networks: ExpertNetworks, kernels: Kernels) -> int:
    """F, 0 where experts have no interim activations."""
    axes = networks.kernel_axes.items()
    return next((kernels[name].shape[own.index("mlp")] for name, own in axes if "mlp" in own), 0)


def slot_product(x_EPRD: jax.Array, kernel_EDF: jax.Array) -> jax.Array:
    """x kernel of every expert, [E, P, R, F]."""
    if platform() == "cpu":
        E, P, R, D = x_EPRD.shape
        return product(x_EPRD.reshape(E, P * R, D), kernel_EDF).reshape(E, P, R, -1)
    return jnp.einsum("eprd,edf->eprf", x_EPRD, kernel_EDF)


def to_experts(x_PERD: jax.Array) -> jax.Array:
    """[P, E, R, D] to [E, P, R, D] on the experts' devices: one all-to-all over the expert axis."""
    x_PERD = constrain(x_PERD, "group", None, None, "embed")
    n = _sharing_experts()

    # On a device its own slots of all experts, and then all n devices' slots of its own.
    def move(x_1ERD: jax.Array) -> jax.Array:
        sent_nERD = x_1ERD.reshape(n, -1, *x_1ERD.shape[2:])
        received_nERD = jax.lax.all_to_all(sent_nERD, "expert", 0, 0, tiled=True)
        return _as_written(received_nERD).swapaxes(0, 1)

    x_EPRD = x_PERD.swapaxes(0, 1) if n == 1 else _moved(move, x_PERD, _GROUPS, _EXPERTS, "embed")
    return constrain(x_EPRD, *_EXPERTS, "embed")


def _marks_to_experts(mark_PER: jax.Array) -> jax.Array:
    """[P, E, R] to [E, P, R], as slots go."""
    return kept(to_experts(mark_PER[:, :, None])[:, :, 0])


def from_experts(y_EPRD: jax.Array, axis: str) -> jax.Array:
    """The way back: [E, P, R, D] to [P, E, R, D] on the groups' devices, one all-to-all.

    `axis` is the logical name of the last dimension.
    """
    y_EPRD = constrain(y_EPRD, *_EXPERTS, axis)
    n = _sharing_experts()

    def move(y_EnRD: jax.Array) -> jax.Array:
        sent_nERD = _as_written(y_EnRD.swapaxes(0, 1))
        received_nERD = jax.lax.all_to_all(sent_nERD, "expert", 0, 0, tiled=True)
        return received_nERD.reshape(1, -1, *y_EnRD.shape[2:])

    y_PERD = y_EPRD.swapaxes(0, 1) if n == 1 else _moved(move, y_EPRD, _EXPERTS, _GROUPS, axis)
    return constrain(y_PERD, *_GROUPS, axis)


def _as_written(x: jax.Array) -> jax.Array:
    """The same, and in memory in the order of its axes.

    So that a turn before it, or behind it backward, is part of the product that is turned; else
    XLA's TPU compiler lets the product write in its own order, and copies for the exchange.
    """
    return with_layout_constraint(x, Layout(major_to_minor=(*range(x.ndim),)))


# Logical axes of slots but for the last one, beside their groups and beside their experts.
Axes = tuple[str | None, ...]
_GROUPS: Axes = ("group", None, None)
_EXPERTS: Axes = ("expert", "expert_group", None)


def _sharing_experts() -> int:
    """How many devices share out the experts."""
    return jax.sharding.get_abstract_mesh().shape.get("expert", 1)


def _moved(
    move: Callable[[jax.Array], jax.Array], x: jax.Array, here: Axes, there: Axes, axis: str
) -> jax.Array:
    """The exchange by hand: XLA's own way from one layout to the other turns arrays twice."""
    layouts = spec(*here, axis), spec(*there, axis)
    return jax.shard_map(move, in_specs=layouts[0], out_specs=layouts[1])(x)
