"""What an objective makes of a batch, or of a part of one."""

import dataclasses

import jax

from switchx.model import RoutingStats


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Outcome:
    """Sums that parts of a batch add up to, and means that they share.

    What is minimised is sums["objective"] / weight of the whole batch + penalty.

    Attributes:
      sums: float32 scalars over what is counted, as target tokens are. There must be "objective",
        "cross_entropy" in nats against the targets alone, "correct", and "weight", by which all
        are divided; any other is logged under its name.
      penalty: float32 scalar, the mean over the batch's parts.
      stats: of the switch layers, means over the batch's parts; None for a dense model.
    """

    sums: dict[str, jax.Array]
    penalty: jax.Array
    stats: RoutingStats | None
