"""How fast a training step can be at most: a bound from what the chips can do, not a prediction."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Rates:
    """What one chip can do in a second: FLOPs, and bytes through its memory.

    Attributes:
      flops: at the precision of the model's products.
      memory: bytes read and written, together.
    """

    flops: float
    memory: float


@dataclasses.dataclass(frozen=True)
class Bound:
    """The least time of a step, and what follows from it.

    Attributes:
      compute, memory: seconds that the chip's units need if nothing else holds them up.
      network: the same of "ici" and "dcn", `switchx.planning.network`.
      collectives: the same of each of the plan's collectives, alone.
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
    collectives: tuple[float, ...]
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
    network: dict[str, float],
    collectives: tuple[float, ...] = (),
    rates: Rates,
    tokens: int,
    steps: int,
) -> Bound:
    """The roofline bound (Williams et al. 2009): computation, memory and networks fully overlap.

    Args:
      executed_flops: that a chip does in a step.
      model_flops: that the model needs of a chip in a step, without waste.
      memory_bytes: that have to pass through a chip's memory, see `least_memory_bytes`.
      network: seconds that each needs at least for a step's collectives.
      collectives: the same of each of them, alone.
      tokens: in a step, of all chips.
      steps: of the run.
    """
    compute, memory = executed_flops / rates.flops, memory_bytes / rates.memory
    times = {"compute": compute, "memory": memory, **network}
    limited_by = max(times, key=lambda name: times[name])
    seconds = times[limited_by]
    return Bound(
        compute,
        memory,
        network,
        collectives,
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
