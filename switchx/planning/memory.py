"""What one chip must hold while a step runs, and how that compares with what it has."""

import dataclasses
import re
from typing import Any

import jax

from switchx.planning.chips import GIB
from switchx.training.state import Setup, bytes_per_device


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one chip.

    Attributes:
      parameters, optimizer: the state's shards, as the shardings say.
      gradients: shards of their size; 0 where the compiled program never holds them all at once.
      activations: what the program keeps besides: activations, buffers of collectives, temporaries;
        None where nothing was compiled, or where the compiler gave up before it knew.
      batch: the step's tokens, and what the layout of arguments in memory adds by rounding.
      program: instructions.
      total: of all of it; a lower bound where activations is None.
      limit: what the chip has; None for CPU devices.
    """

    parameters: int
    optimizer: int
    gradients: int
    activations: int | None
    batch: int
    program: int
    total: int
    limit: int | None

    @property
    def over(self) -> int:
        """Bytes missing; 0 if it fits."""
        return 0 if self.limit is None else max(0, self.total - self.limit)

    @property
    def state(self) -> int:
        return self.parameters + self.optimizer


@dataclasses.dataclass(frozen=True)
class Refusal:
    """What the compiler says of a program that is too large: bytes needed and bytes there are.

    `whole` is False where it counted temporaries alone, to which the arguments must be added.
    """

    needed: int
    limit: int
    whole: bool


def analytic(setup: Setup, batch: Any, limit: int | None) -> Memory:
    """Without a compiled program: the state, gradients and batch, which no compiler can avoid.

    Gradients count in full: they are whole before a norm is taken of them or an update clipped.
    """
    parameters, optimizer, tokens = _state(setup, batch)
    total = 2 * parameters + optimizer + tokens
    return Memory(parameters, optimizer, parameters, None, tokens, 0, total, limit)


def of_program(
    compiled: jax.stages.Compiled, setup: Setup, batch: Any, limit: int | None
) -> Memory:
    """From the compiler's own account: its peak, which counts donated arguments once."""
    stats = compiled.memory_analysis()
    assert stats is not None  # every backend that is planned for gives them
    parameters, optimizer, _ = _state(setup, batch)
    arguments, program = stats.argument_size_in_bytes, stats.generated_code_size_in_bytes
    # The TPU's temp_size can exceed what is held at any one time, even the chip's memory; its peak
    # cannot. The CPU's peak leaves temporaries out.
    on_tpu = setup.mesh.devices.flat[0].platform == "tpu"
    peak = stats.peak_memory_in_bytes - arguments if on_tpu else stats.temp_size_in_bytes
    temporaries = max(0, peak)
    gradients = min(parameters, temporaries)
    return Memory(
        parameters=parameters,
        optimizer=optimizer,
        gradients=gradients,
        activations=temporaries - gradients,
        batch=max(0, arguments - parameters - optimizer),
        program=program,
        total=max(arguments, parameters + optimizer) + temporaries + program,
        limit=limit,
    )


def of_refusal(refusal: Refusal, setup: Setup, batch: Any) -> Memory:
    """From the compiler's error message."""
    parameters, optimizer, tokens = _state(setup, batch)
    arguments = parameters + optimizer + tokens
    total = refusal.needed if refusal.whole else refusal.needed + arguments
    total = max(total, refusal.limit + 1)
    gradients = min(parameters, max(0, total - arguments))
    activations = max(0, total - arguments - gradients)
    return Memory(parameters, optimizer, gradients, activations, tokens, 0, total, refusal.limit)


def parse_refusal(message: str) -> Refusal | None:
    """Reads the TPU compiler's RESOURCE_EXHAUSTED; None if the message is another."""
    used = re.search(r"Used ([\d.]+[KMGT]?) of ([\d.]+[KMGT]?) hbm", message)
    if used:
        return Refusal(_bytes(used[1]), _bytes(used[2]), whole=True)
    temporaries = re.search(
        r"required for HLO temporaries \(([\d.]+[KMGT]?)\) exceeds available HBM "
        r"\(([\d.]+[KMGT]?)\)",
        message,
    )
    if temporaries:
        return Refusal(_bytes(temporaries[1]), _bytes(temporaries[2]), whole=False)
    return None


def _bytes(text: str) -> int:
    """ "95.74G" in powers of 1024, as the compiler writes it."""
    units = {"K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}
    return int(float(text.rstrip("KMGT")) * units.get(text[-1], 1))


def _state(setup: Setup, batch: Any) -> tuple[int, int, int]:
    parts = (setup.abstract.params, setup.abstract.opt_state, batch)
    parameters, optimizer, tokens = map(bytes_per_device, parts)
    return parameters, optimizer, tokens
