"""What a dispatcher is, and what it needs of experts."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
from jax.sharding import PartitionSpec

from switchx.errors import UserError
from switchx.model.dispatch.stacked import Kernels, Stacked, stacked_in
from switchx.model.noise import Noise
from switchx.model.routing import Assignment, Capacity, Settings
from switchx.sharding import batch_shards, spec

# Multiplies each expert's rows with the expert's kernel: [E, G, C, D] and [E, D, F] to
# [E, G, C, F], or rows sorted by expert, [R, D], to [R, F].
Product = Callable[[jax.Array, Any], jax.Array]


@dataclasses.dataclass(frozen=True)
class Operations:
    """What a dispatcher has for the rows that it gives to experts.

    Attributes:
      product: of rows and kernels.
      drop: dropout of interim activations.
      relu_network: relu(x wi) wo of x, wi and wo, where that is more than its products and nothing
        is dropped in between; else None.
    """

    product: Product
    drop: Callable[[jax.Array], jax.Array]
    relu_network: Callable[[jax.Array, Any, Any], jax.Array] | None = None


class ExpertNetworks(Protocol):
    """E networks of one form, their parameters stacked on a leading E axis."""

    @property
    def kernel_axes(self) -> Mapping[str, tuple[str, ...]]:
        """Logical axes of what `kernels` returns."""
        ...

    @property
    def output_axis(self) -> str:
        """Logical axis of the last dimension of what `compute` returns."""
        ...

    def kernels(self) -> Kernels:
        """The parameters by name, each [E, ...], in the dtype of computation or in stacks."""
        ...

    def compute(self, kernels: Kernels, x: jax.Array, operations: Operations) -> jax.Array:
        """Every expert's network on its rows.

        Args:
          kernels: as `kernels()` gives them, or a device's share of them.
          x: the experts' inputs, in whichever form `operations` take.
        """
        ...


class ExpertsByWidth(Protocol):
    """All experts of a layer."""

    @property
    def by_width(self) -> Sequence[ExpertNetworks]:
        """Those of each width, numbered through in this order; of one form there is one entry."""
        ...


def number_of(kernels: Kernels) -> int:
    """How many experts have these parameters."""
    return next(iter(kernels.values())).shape[0]


def kernel_specs(networks: ExpertNetworks, kernels: Kernels) -> dict[str, PartitionSpec | Stacked]:
    """How the mesh shares out what `kernels` returned."""
    specs: dict[str, PartitionSpec | Stacked] = {}
    for name, axes in networks.kernel_axes.items():
        of_all = spec(None, *axes)
        in_stack = Stacked(of_all, of_all, PartitionSpec())  # type: ignore[arg-type]
        specs[name] = in_stack if isinstance(kernels[name], Stacked) else spec(*axes)
    return specs


def shards_of(groups: int) -> int:
    """How many devices of the mesh in force share out the groups of tokens.

    Raises:
      UserError: `groups` is no multiple of that.
    """
    shards = batch_shards(jax.sharding.get_abstract_mesh())
    if groups % shards:
        raise UserError(
            f"{groups} rows or groups of tokens cannot be shared out over MESH_DATA x MESH_EXPERT "
            f"x MESH_REPLICA = {shards}: use a multiple of it at a time."
        )
    return shards


def on_devices(
    device: Callable[..., jax.Array], in_specs: tuple, *out_axes: str | None
) -> Callable[..., jax.Array]:
    """What each device does, shared out over the mesh in force: `jax.shard_map`.

    Args:
      device: where its share of the experts' widths gives a share of each sum, that. Of kernels in
        stacks it takes parts, and what these hand on is handed on.
      out_axes: logical axes of the result.
    """
    out_specs = spec(*out_axes)
    # Summed out here: within, JAX would sum the gradients of the shares once more.
    summed = "model" not in out_specs
    if summed:
        out_specs = PartitionSpec("model", *out_specs)

    def shares(*args: Any) -> tuple[jax.Array, list[jax.Array]]:
        y = device(*args)
        return y[None] if summed else y, [each.passed_LEDF for each in stacked_in(args)]

    passed_specs = [each.passed_LEDF for each in stacked_in(in_specs)]
    on_mesh = jax.shard_map(
        shares, in_specs=in_specs, out_specs=(out_specs, passed_specs), check_vma=False
    )

    def run(*args: Any) -> jax.Array:
        y, passed = on_mesh(*args)
        for each, passed_LEDF in zip(stacked_in(args), passed, strict=True):
            each.passed_LEDF = passed_LEDF
        return jax.lax.reduce(y, 0, jax.lax.add, (0,)) if summed else y

    return run


class Dispatcher(Protocol):
    """Takes tokens to the experts of their assignment, has them computed, and brings them back."""

    @property
    def dropless(self) -> bool:
        """Whether it can do without a capacity."""
        ...

    def check(self, settings: Settings) -> None:
        """Raises UserError for settings of routing that mean nothing with it."""
        ...

    def in_stacks(
        self, capacity: Capacity | None, numbers: Sequence[int], choices: int, groups: int
    ) -> bool:
        """Whether it takes experts' kernels in the stacks of all layers, where it is given them so.

        Args:
          numbers: of experts, of each width.
          choices: of a group's tokens.
          groups: of the batch.
        """
        ...

    def __call__(
        self,
        x_GSD: jax.Array,
        assignment: Assignment,
        experts: Sequence[ExpertNetworks],
        capacity: Capacity | None,
        dropout_rate: float,
        noise: Noise,
    ) -> jax.Array:
        """Each token's kept experts' outputs times their gates, summed: [G, S, D].

        Args:
          experts: of each width, in the order of the experts' numbers.
          capacity: slots per expert, or pool, and group; None where nothing was dropped for want of
            any, which a dropless dispatcher alone takes.
          dropout_rate: of the experts' interim activations.
          noise: keys per group, of that dropout.
        """
        ...
