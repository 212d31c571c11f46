"""What one chip must hold while a step runs, and how that compares with what it has."""

import dataclasses
import re
from typing import Any

import jax

from switchx.planning.chips import GIB
from switchx.training.placing import bytes_per_device
from switchx.training.state import Setup


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one chip.

    Attributes:
      parameters, optimizer: the state's shards, as the shardings say.
      gradients: shards of the size of what is trained; 0 where the compiled program never holds
        them all at once.
      activations: what the program keeps besides: activations, buffers of collectives, temporaries;
        None where nothing was compiled, or where the compiler gave up before it knew.
      batch: the step's tokens, and what the layout of arguments in memory adds by rounding.
      program: instructions.
      limit: what the chip has; None for CPU devices.
      frozen: of the parameters, those of FREEZE, which no step writes.
      constants: the objective's arrays, as a teacher's parameters.
    """

    parameters: int
    optimizer: int
    gradients: int
    activations: int | None
    batch: int
    program: int
    limit: int | None
    frozen: int = 0
    constants: int = 0

    @property
    def total(self) -> int:
        """Of all of it; a lower bound where activations is None."""
        held = self.gradients + (self.activations or 0)
        return self.state + self.constants + held + self.batch + self.program

    @property
    def over(self) -> int:
        """Bytes missing; 0 if it fits."""
        return 0 if self.limit is None else max(0, self.total - self.limit)

    @property
    def microbatches_help(self) -> bool:
        """Whether half the activations are more than the sum of gradients they would keep."""
        return (self.activations or 0) > 2 * (self.parameters - self.frozen)

    @property
    def state(self) -> int:
        return self.parameters + self.optimizer


@dataclasses.dataclass(frozen=True)
class Refusal:
    """What the compiler says of a program that is too large: bytes needed and bytes there are."""

    needed: int
    limit: int


def analytic(setup: Setup, batch: Any, limit: int | None) -> Memory:
    """Without a compiled program: the state, gradients and batch, which no compiler can avoid."""
    parameters, optimizer, tokens = _state(setup, batch)
    frozen = parameters - _trained(setup)
    gradients = _least_gradients(setup)
    held = (parameters, optimizer, gradients, None, tokens, 0, limit, frozen)
    return Memory(*held, constants=_constants(setup))


def _least_gradients(setup: Setup) -> int:
    """Bytes of the gradients that exist at the same time however the step is scheduled.

    Those of one stack, which its backward pass makes together; all where their norm must be known
    before an update; and the sum besides where microbatches add to one.
    """
    parts = setup.trained(setup.abstract.params)
    everything = bytes_per_device(parts)
    one_stack = max(bytes_per_device(part) for part in parts.values())
    if setup.run.trainer.microbatches > 1:
        return everything + one_stack
    return one_stack if setup.run.optimizer.clip_global_norm is None else everything


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
    trained, held = _trained(setup), parameters + optimizer
    gradients, frozen = min(trained, temporaries), parameters - trained
    constants = _constants(setup)
    rest = max(0, arguments - held - constants)
    activations = temporaries - gradients
    parts = (parameters, optimizer, gradients, activations, rest, program, limit, frozen)
    return Memory(*parts, constants=constants)


def of_refusal(refusal: Refusal, setup: Setup, batch: Any) -> Memory:
    """From the compiler's error message."""
    parameters, optimizer, tokens = _state(setup, batch)
    constants = _constants(setup)
    arguments = parameters + optimizer + constants + tokens
    temporaries = max(refusal.needed, arguments, refusal.limit + 1) - arguments
    trained = _trained(setup)
    gradients = min(trained, temporaries)
    activations = temporaries - gradients
    frozen = parameters - trained
    parts = (parameters, optimizer, gradients, activations, tokens, 0, refusal.limit, frozen)
    return Memory(*parts, constants=constants)


def parse_refusal(message: str) -> Refusal | None:
    """Reads the TPU compiler's RESOURCE_EXHAUSTED; None if the message is another.

    It has two wordings. What the second calls temporaries are all of the program's buffers.
    """
    for wording in (
        r"Used (SIZE) of (SIZE) hbm",
        r"required for HLO temporaries \((SIZE)\) exceeds available HBM \((SIZE)\)",
    ):
        found = re.search(wording.replace("SIZE", r"[\d.]+[KMGT]?"), message)
        if found:
            return Refusal(_bytes(found[1]), _bytes(found[2]))
    return None


def _bytes(text: str) -> int:
    """ "95.74G" in powers of 1024, as the compiler writes it."""
    units = {"K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}
    return int(float(text.rstrip("KMGT")) * units.get(text[-1], 1))


def _trained(setup: Setup) -> int:
    """Bytes of the parameters that are trained."""
    return bytes_per_device(setup.trained(setup.abstract.params))


def _constants(setup: Setup) -> int:
    """Bytes of what the objective holds."""
    return bytes_per_device(setup.objective.abstract_constants(setup.mesh))


def _state(setup: Setup, batch: Any) -> tuple[int, int, int]:
    parts = (setup.abstract.params, setup.abstract.opt_state, batch)
    parameters, optimizer, tokens = map(bytes_per_device, parts)
    return parameters, optimizer, tokens
