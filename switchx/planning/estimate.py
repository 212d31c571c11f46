"""How fast a training step can be at most: a bound from what the chips can do, not a prediction."""

import dataclasses
import math
from collections.abc import Iterable, Mapping

from switchx.planning.program import Collective, least_sent

SLOW_AXIS = "replica"  # between slices or nodes; every other axis stays within one


@dataclasses.dataclass(frozen=True)
class Rates:
    """What one chip can do in a second: FLOPs, and bytes through its memory and networks.

    Attributes:
      flops: at the precision of the model's products.
      memory: bytes read and written, together.
      ici: bytes sent over all its links to its neighbours.
      dcn: its share of the bytes that its host sends to other slices or nodes.
    """

    flops: float
    memory: float
    ici: float
    dcn: float


@dataclasses.dataclass(frozen=True)
class Bound:
    """The least time of a step, and what follows from it.

    Attributes:
      compute, memory: seconds that the chip's units need if nothing else holds them up.
      network: the same of "ici" and "dcn".
      seconds: of the step, the largest of these.
      limited_by: its name.
      tokens_per_second: at most.
      utilisation: model FLOPs over those that the chips could do in the time (PaLM, Chowdhery et
        al. 2022, appendix B: model FLOPs utilization), at most.
      days: of the whole run, at least.
    """

    compute: float
    memory: float
    network: dict[str, float]
    seconds: float
    limited_by: str
    tokens_per_second: float
    utilisation: float
    days: float


def step_bound(
    *,
    executed_flops: float,
    model_flops: float,
    memory_bytes: float,
    collectives: Iterable[Collective],
    axes: Mapping[str, int],
    rates: Rates,
    tokens: int,
    steps: int,
) -> Bound:
    """The roofline bound (Williams et al. 2009): computation, memory and networks fully overlap.

    Args:
      executed_flops: that a chip does in a step.
      model_flops: that the model needs of a chip in a step, without waste.
      memory_bytes: that have to pass through a chip's memory, see `least_memory_bytes`.
      collectives: of a step.
      axes: the mesh's axes and sizes.
      tokens: in a step, of all chips.
      steps: of the run.
    """
    traffic = [_sent(each, axes) for each in collectives]
    network = {
        "ici": sum(ici for ici, _ in traffic) / rates.ici,
        "dcn": sum(dcn for _, dcn in traffic) / rates.dcn,
    }
    compute, memory = executed_flops / rates.flops, memory_bytes / rates.memory
    times = {"compute": compute, "memory": memory, **network}
    limited_by = max(times, key=lambda name: times[name])
    seconds = times[limited_by]
    return Bound(
        compute,
        memory,
        network,
        seconds,
        limited_by,
        tokens_per_second=tokens / seconds,
        utilisation=model_flops / (seconds * rates.flops),
        days=steps * seconds / 86400,
    )


def least_memory_bytes(arguments: int, outputs: int, temporaries: int) -> int:
    """Bytes that pass through a chip's memory at least, from `Compiled.memory_analysis()`.

    Arguments are read once and outputs written once, also where they share memory. Temporaries
    are written once and read once; they are counted at their peak, and what reuses their memory
    is not.
    """
    return arguments + outputs + 2 * temporaries


def _sent(collective: Collective, axes: Mapping[str, int]) -> tuple[float, float]:
    """Bytes that a chip sends at least within its slice, and to other slices.

    Among r slices with m chips each, sums are scattered within a slice, then summed between the
    slices, then gathered within (as for one slice, `least_sent`): between slices each chip has
    1/m of the array. Gathering and scattering are half of that. In an exchange m of the n parts
    stay in the slice. Of a permutation at least one chip's array leaves it.
    """
    if axes.get(SLOW_AXIS, 1) == 1 or SLOW_AXIS not in collective.axes:
        return collective.sent, 0
    kind, size, r = collective.kind, collective.bytes, axes[SLOW_AXIS]
    m = math.prod(axes[axis] for axis in collective.axes) // r
    if kind == "collective-permute":
        return 0, size
    if kind.endswith("all-to-all"):
        return size * (m - 1) / (r * m), size * (r - 1) / r
    return least_sent(kind, size, m), least_sent(kind, size, r) / m
