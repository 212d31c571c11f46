"""How long a training step is likely to take on TPUs, from its compiled program.

The compiler's cycles and the network's least time, one after the other, each times a factor that
was fitted to published steps of other models. scripts/step_times/ has these with their sources,
scripts/fit_step_times.py the fit, docs/scale_and_plan.md what it was tested on.
"""

import dataclasses
import math

from switchx.planning.chips import Chip
from switchx.planning.cycles import KERNEL_RATE, attention_flops, costs, total
from switchx.planning.estimate import Bound
from switchx.planning.hlo import Program
from switchx.planning.network import Network

# As scripts/fit_step_times.py prints them. What a second of the compiler's cycles takes; what a
# kernel's products take beside that, as a multiple of their time at the chip's peak (attention's
# were in the published steps); what a second of the network's least time takes.
COMPUTATION = {"v4": 1.14, "v5e": 0.82, "v5p": 0.82, "v6e": 0.82}
KERNELS = 4.13
NETWORK = 0.905
# Nine of ten published steps are within exp(+-ERROR) of what a fit without their model says.
ERROR = 0.135


@dataclasses.dataclass(frozen=True)
class Likely:
    """Of a step.

    Attributes:
      seconds: that it is likely to take.
      low, high: between which nine of ten published steps were, as a share of their prediction.
      computation, network: what of `seconds` is which.
    """

    seconds: float
    low: float
    high: float
    computation: float
    network: float


def likely(text: str, chip: Chip, network: Network, bound: Bound) -> Likely | None:
    """From a compiled program; None on GPUs, of which no published step was fitted.

    Args:
      text: `Compiled.as_text()`.
      bound: of the same step; it is likely to take no less.
    """
    if chip.name not in COMPUTATION:
        return None
    parts = costs(text, chip, network)
    moved = total(parts.pop(part) for part in ("exchange", "sums"))
    # In place of the rate that the cycles have for them.
    kernels = (KERNELS - 1 / KERNEL_RATE) * _attention_flops(text) / chip.peak_flops("bfloat16")
    computation = total(parts.values()).total / chip.clock + kernels
    computation *= COMPUTATION[chip.name]
    moving = NETWORK * moved.total / chip.clock
    seconds = max(computation + moving, bound.seconds)
    low = max(seconds * math.exp(-ERROR), bound.seconds)
    return Likely(seconds, low, seconds * math.exp(ERROR), computation, moving)


def _attention_flops(text: str) -> int:
    """Of all its kernels."""
    running = Program(text).running(("while", "call", "conditional"))
    return sum(times * attention_flops(each) for times, _, each in running)
