"""Slots of which few are filled: the experts compute these alone.

Where an expert has few tokens of each group, the least number of slots, or their rounding, makes
far more slots than there are tokens (Switch-C: two slots for the mean of one or 0.2). Slots are
exchanged as ever, so routing, capacity and drops are the same; on the experts' devices the filled
ones are sorted by expert, multiplied, and put back in their slots.
"""

import dataclasses
import math
from fractions import Fraction

import jax
import jax.numpy as jnp

from switchx.model.dispatch.dispatcher import ExpertNetworks, kernel_specs, on_devices
from switchx.model.dispatch.sorted_experts import SortedExperts
from switchx.model.dispatch.sorted_product import cpu_block
from switchx.model.dispatch.stacked import Kernels
from switchx.model.noise import NO_NOISE, Noise
from switchx.model.routing import Slots
from switchx.sharding import expert_copies, platform, spec

# Of an expert's slots, the most that may be filled, half of the last block of its rows counted in:
# by platform, where it was measured (docs/speed.md). On TPUs, whose products of all slots read and
# write experts' float32 matrices where these lie, copies of them would cost more than is saved.
_MOST_FILLED = {"cpu": Fraction(1, 2)}
_MOST_FILLED_IN_STACKS = {"tpu": Fraction(5, 6)}


def packed_shares(slots: Slots, choices: int, groups: int, in_stacks: bool) -> list[int | None]:
    """About how many of an expert's slots on a device are filled, for each width; None: not packed.

    Args:
      slots: of a group, which has so many choices.
      groups: of the batch.
      in_stacks: whether experts' kernels are read where they lie.
    """
    groups //= expert_copies(jax.sharding.get_abstract_mesh())
    filled = Fraction(min(choices, slots.total), slots.total)
    most = (_MOST_FILLED_IN_STACKS if in_stacks else _MOST_FILLED).get(platform(), 0)
    shares = []
    for _, C in slots.by_width:
        share = math.ceil(filled * groups * C)
        worth = share + Fraction(cpu_block(share), 2) <= most * groups * C
        shares.append(share if worth else None)
    return shares


def computed_packed(
    networks: ExpertNetworks,
    kernels: Kernels,
    x_EPRD: jax.Array,
    filled_EPR: jax.Array,
    share: int,
    dropout_rate: float,
    noise_EPR: Noise,
) -> jax.Array:
    """The outputs of the experts of one width, [E, P, R, D]; anything finite in empty slots.

    Args:
      filled_EPR: bool.
      share: of a device's slots of an expert, how many are filled, about.
      noise_EPR: keys of each slot.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if not dropout_rate:
        noise_EPR = NO_NOISE
    noise_EPR = jax.tree.map(lambda key: jnp.broadcast_to(key, filled_EPR.shape), noise_EPR)
    device = _Device(networks, dropout_rate, share)
    if mesh.empty or mesh.size == 1:
        return device(kernels, x_EPRD, filled_EPR, noise_EPR)
    axes = "expert", "expert_group", None
    slots = spec(*axes)
    device = dataclasses.replace(device, num_model=mesh.shape["model"])
    in_specs = (kernel_specs(networks, kernels), slots, slots, slots)
    on_mesh = on_devices(device, in_specs, *axes, networks.output_axis)
    return on_mesh(kernels, x_EPRD, filled_EPR, noise_EPR)


@dataclasses.dataclass(frozen=True)
class _Device:
    """What one device does: its slots of its experts, its share of their width."""

    networks: ExpertNetworks
    dropout_rate: float
    share: int
    num_model: int = 1

    def __call__(
        self,
        kernels: Kernels,
        x_EPRD: jax.Array,
        filled_EPR: jax.Array,
        noise_EPR: Noise,
    ) -> jax.Array:
        # As the exchange brought them, before its turn for products of whole experts: sorted they
        # are the same, and the compiler leaves both turns out.
        x_PERD, filled_PER, noise_PER = jax.tree.map(
            lambda x_EPR: x_EPR.swapaxes(0, 1), (x_EPRD, filled_EPR, noise_EPR)
        )
        P, E, R, D = x_PERD.shape
        expert_PER = jnp.where(filled_PER, jnp.arange(E, dtype=jnp.int32)[:, None], E)
        own = SortedExperts([self.networks], self.dropout_rate, self.share, self.num_model)
        y_ND = own.of_rows(
            [kernels], x_PERD.reshape(-1, D), expert_PER.reshape(-1), noise_PER.in_line()
        )
        return y_ND.reshape(P, E, R, -1).swapaxes(0, 1)
