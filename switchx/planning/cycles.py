"""What the compiler expects a TPU program to cost: cycles and bytes, by part of the step.

Most instructions carry the compiler's own estimate. Gathers, scatters, sorts, kernels and
collectives carry none: they are priced here by what they have to move, a kernel that says how much
it multiplies by that at least.
"""

import collections
import dataclasses
import re
from collections.abc import Iterable, Iterator

from switchx.model.dispatch.sorted_blocks import rows_of
from switchx.planning.chips import Chip
from switchx.planning.hlo import Instruction, Program, bytes_by_dtype
from switchx.planning.network import Network
from switchx.planning.program import collectives
from switchx.training.profile_costs import part_of

# In the order in which tables show them:
#   products: of matrices, attention's of queries, keys and weights excepted
#   attention: these, the softmax, the bias; kernels of it
#   routing, dispatch: as the step's scopes "router", "dispatch" and "combine"
#   exchange: all-to-alls
#   sums: every other collective
#   stacks: reading and writing what a loop over blocks keeps for its backward pass
#   optimizer: the update and the norm of the gradients
#   rest: norms, residuals, embedding, loss, copies
PARTS = (
    "products",
    "attention",
    "routing",
    "dispatch",
    "exchange",
    "sums",
    "stacks",
    "optimizer",
    "rest",
)
_OF_SCOPE = {
    "router": "routing",
    "dispatch": "dispatch",
    "combine": "dispatch",
    "optimizer": "optimizer",
}
_ATTENTION = ("attention", "cross_attention")
_STACK = re.compile(r"/dynamic_(update_)?slice$|/jit\(dynamic_index_in_dim\)/squeeze$")
_CORE = re.compile(r"/attend/|bhlm")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_KERNEL_FLOPS = re.compile(r'"cost_estimate":\{"flops":"(\d+)"')
_KERNEL_BYTES = re.compile(r'"bytes_accessed":"(\d+)"')
# Of the matrix unit's rate, as attention's kernels are scheduled, and those of sorted rows
# (docs/speed.md).
KERNEL_RATE, _SORTED_RATE = 0.4, 0.8
_SCOPE = re.compile(r'op_name="([^"]*)"')
_ARRAY = re.compile(r"\b[a-z]+\d*\w*\[[\d,]*\](?:\{[^}]*\})?")
_ON_CHIP = re.compile(r"S\(\d+\)\}")  # of an array that is in the chip's fast memory
_PRODUCTS = ("convolution", "dot")
_NOT_RUN = (
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast"),
    *("while", "call", "conditional"),
)
_READ_IN_PART = ("dynamic-slice", "slice", "gather")
_WRITTEN_IN_PART = {"dynamic-update-slice": 1, "scatter": 2}  # the operand that is written there


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of a part of a program, on one chip.

    Attributes:
      cycles: the compiler's estimates.
      priced: cycles of what carries none: its bytes at the memory's rate, or a kernel's products at
        KERNEL_RATE; of collectives the least time on the network's links, one after the other.
      unpriced: how many such instructions run, collectives excepted.
      bytes: that pass through the chip's memory.
    """

    cycles: float = 0.0
    priced: float = 0.0
    unpriced: int = 0
    bytes: float = 0.0

    @property
    def total(self) -> float:
        """Cycles, nothing overlapping."""
        return self.cycles + self.priced

    def __add__(self, other: "Cost") -> "Cost":
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Cost(*map(sum, pairs))

    def times(self, n: int) -> "Cost":
        return Cost(*(n * value for value in dataclasses.astuple(self)))


def costs(text: str, chip: Chip, network: Network) -> dict[str, Cost]:
    """The cost of every part of PARTS in one run of a program for TPUs, `Compiled.as_text()`."""
    program = Program(text)
    found: collections.defaultdict[str, Cost] = collections.defaultdict(Cost)
    for times, instruction in _run(program):
        cost = _cost(program, instruction, chip)
        found[_part(program, instruction)] += cost.times(times)
    for move in collectives(text, network.axes):
        part = "exchange" if move.kind.endswith("all-to-all") else "sums"
        found[part] += Cost(priced=sum(network.seconds([move]).values()) * chip.clock)
    return {part: found[part] for part in PARTS}


def costliest(text: str, chip: Chip) -> list[tuple[float, int, str, str, str]]:
    """The costliest instructions first: cycles in all, how often run, part, shape, named scopes.

    Without collectives.
    """
    program, rows = Program(text), []
    for times, instruction in _run(program):
        cycles = times * _cost(program, instruction, chip).total
        if cycles:
            scope = _scope(program, instruction)
            shape = ", ".join(_ARRAY.findall(instruction.shape))
            rows.append((cycles, times, _part(program, instruction), shape, scope))
    return sorted(rows, key=lambda row: -row[0])


def attention_flops(instruction: Instruction) -> int:
    """What a kernel of attention says that it has; 0 of everything else."""
    found = _KERNEL_FLOPS.search(instruction.rest)
    return int(found.group(1)) if found and not _is_of_sorted_rows(instruction) else 0


def total(parts: Iterable[Cost]) -> Cost:
    """Of the whole program."""
    return sum(parts, Cost())


def _run(program: Program) -> Iterator[tuple[int, Instruction]]:
    for times, _, instruction in program.running(("while", "call", "conditional")):
        if instruction.opcode not in _NOT_RUN:
            yield times, instruction


def _cost(program: Program, instruction: Instruction, chip: Chip) -> Cost:
    """Of one run of an instruction."""
    if (declared := _declared_bytes(instruction)) is not None:
        through = moved = declared
    else:
        through = _bytes_through_memory(program, instruction)
        moved = _bytes_through_memory(program, instruction, on_chip=True)
    if found := _CYCLES.search(instruction.rest):
        return Cost(cycles=int(found.group(1)), bytes=through)
    if not _is_unpriced(instruction):
        return Cost(bytes=through)
    seconds = moved / chip.hbm_rate
    if flops := _KERNEL_FLOPS.search(instruction.rest):
        rate = _SORTED_RATE if _is_of_sorted_rows(instruction) else KERNEL_RATE
        seconds = max(seconds, int(flops.group(1)) / (rate * chip.peak_flops("bfloat16")))
    return Cost(priced=seconds * chip.clock, unpriced=1, bytes=through)


def _is_unpriced(instruction: Instruction) -> bool:
    if instruction.opcode == "fusion":
        return "kind=kCustom" in instruction.rest
    return (
        instruction.opcode in ("gather", "scatter", "sort")
        or 'custom_call_target="tpu_custom_call"' in instruction.rest
    )


def _declared_bytes(instruction: Instruction) -> float | None:
    """What a kernel of sorted rows says that it moves, of a stack of all layers' its part.

    And one that moves nothing, which makes room for such a stack.
    """
    found = _KERNEL_BYTES.search(instruction.rest)
    if found and (_is_of_sorted_rows(instruction) or found.group(1) == "0"):
        return float(found.group(1))
    return None


def _is_of_sorted_rows(instruction: Instruction) -> bool:
    return instruction.opcode == "custom-call" and rows_of(instruction.rest) is not None


def _part(program: Program, instruction: Instruction) -> str:
    scope = _scope(program, instruction)
    name = part_of(scope)
    if name in _OF_SCOPE:
        return _OF_SCOPE[name]
    if _STACK.search(scope) and name in ("encoder", "decoder"):
        return "stacks"
    multiplies = _multiplies(program, instruction)
    if name in _ATTENTION and not (multiplies and not _CORE.search(scope)):
        return "attention"
    return "products" if multiplies else "rest"


def _scope(program: Program, instruction: Instruction) -> str:
    """The named scopes that it is of; of a copy that the compiler added, what it is a copy of."""
    for _ in range(8):
        found = _SCOPE.search(instruction.rest)
        if found:
            return found.group(1)
        operands = instruction.operands
        if not operands or operands[0] not in program.named:
            break
        instruction = program.named[operands[0]]
    return ""


def _multiplies(program: Program, instruction: Instruction) -> bool:
    """Whether it is a product of matrices or of sorted rows, or a fusion that has one."""
    if instruction.opcode in _PRODUCTS or _is_of_sorted_rows(instruction):
        return True
    inner = (each for name in instruction.called for each in program.computations[name])
    return instruction.opcode == "fusion" and any(_multiplies(program, each) for each in inner)


def _bytes_through_memory(
    program: Program, instruction: Instruction, on_chip: bool = False
) -> float:
    """Bytes that an instruction reads and writes; `on_chip`: those in fast memory too.

    Of an array that it reads or writes in part, as of a stack that a loop keeps, that part.
    """
    opcode = instruction.opcode
    if opcode in _NOT_RUN or opcode.endswith("-start"):
        return 0
    if opcode.endswith("-done"):  # of a copy between the memories: once read or once written
        return _size(instruction.shape, True)
    names, shapes = instruction.operands, []
    inner = program.computations[instruction.called[0]] if opcode == "fusion" else [instruction]
    for number, name in enumerate(names):
        operand = program.named[name]
        if not on_chip and _ON_CHIP.search(operand.shape):
            continue
        whole = _size(operand.shape, on_chip)
        within = _parameter(inner, number) if opcode == "fusion" else name
        shapes.append(min(whole, _read(program, inner, within, whole)))
    return sum(shapes) + _written(program, instruction, inner, on_chip)


def _parameter(inner: list[Instruction], number: int) -> str:
    return next(
        each.name
        for each in inner
        if each.opcode == "parameter" and each.rest.startswith(f"{number})")
    )


def _read(program: Program, inner: list[Instruction], name: str, whole: float) -> float:
    """Bytes that a computation reads of one of its arrays."""
    total = 0.0
    for each in inner:
        if name not in each.operands:
            continue
        at = each.operands.index(name)
        if each.opcode in _READ_IN_PART and at == 0:
            total += _size(each.shape, True)
        elif each.opcode in _WRITTEN_IN_PART and at == 0:
            continue
        elif each.opcode == "bitcast":
            total += _read(program, inner, each.name, whole)
        else:
            return whole
    return total


def _written(
    program: Program, instruction: Instruction, inner: list[Instruction], on_chip: bool
) -> float:
    """Bytes of its results, of those that are updated in place what is written."""
    if instruction.opcode != "fusion":
        inner = [instruction]
    root = inner[-1]
    named = {each.name: each for each in inner}
    results = [root]
    if root.opcode == "tuple":
        results = [named[name] for name in root.operands if name in named]
    shapes = _ARRAY.findall(instruction.shape)
    total = 0.0
    for shape, result in zip(shapes, results, strict=False):
        if _ON_CHIP.search(shape) and not on_chip:
            continue
        while result.opcode == "bitcast" and result.operands[0] in named:
            result = named[result.operands[0]]
        size = _size(shape, True)
        if result.opcode in _WRITTEN_IN_PART:
            update = program.named[result.operands[_WRITTEN_IN_PART[result.opcode]]]
            size = min(size, _size(update.shape, True))
        total += size
    return total


def _size(shape: str, on_chip: bool) -> float:
    """Bytes of an array or of a tuple of arrays; without `on_chip` of those in memory."""
    arrays = _ARRAY.findall(shape)
    return sum(
        sum(bytes_by_dtype(each).values())
        for each in arrays
        if on_chip or not _ON_CHIP.search(each)
    )
