"""The collectives of a compiled program of a CPU, TPU or GPU: what moves, and along which axes.

Read from its text, for nothing else has them: `Compiled.cost_analysis()` counts FLOPs and bytes of
memory, a loop's body once, and `memory_analysis()` sizes of buffers.
"""

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

from switchx.planning.hlo import Instruction, Program, bytes_by_dtype
from switchx.planning.replica_groups import groups_of, mesh_axes

KINDS = (
    "all-to-all",
    "ragged-all-to-all",
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "collective-permute",
)
_CHANNEL = re.compile(r"\bchannel_id=(\d+)")
_BETWEEN_SLICES = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
SLICES = "replica"  # the axis along which slices differ
_CALLERS = ("while", "call", "fusion", "async-start", "conditional", "custom-call")


@dataclasses.dataclass(frozen=True)
class Collective:
    """What all collectives of one kind and dtype over the same mesh axes do in a step, per chip.

    Attributes:
      axes: in the mesh's order, those along which the devices of a group differ.
      count: how many run.
      bytes: of the arrays they move, whole: an all-gather's result, everything else's operand.
      sent: the least that a chip has to send, as `least_sent` counts it.
    """

    kind: str
    dtype: str
    axes: tuple[str, ...]
    count: int
    bytes: int
    sent: int


def collectives(text: str, axes: Mapping[str, int]) -> list[Collective]:
    """The collectives that one run of a program makes, those that send most first.

    A loop's count as often as it goes round; once where the text doesn't say how often. Those
    among groups of one device do nothing and don't count.

    Args:
      text: `Compiled.as_text()`.
      axes: the mesh's axes and sizes in order. Partition i is at `mesh.devices.flat[i]`.

    Raises:
      ValueError: if the program has more partitions than `axes`.
    """
    program = Program(text)
    total: defaultdict[tuple, list[int]] = defaultdict(lambda: [0, 0, 0])
    for times, kind, instruction in _running_collectives(program):
        groups = groups_of(instruction.rest, math.prod(axes.values()))
        over = mesh_axes(groups, axes)
        if not over:
            continue
        n = groups.shape[1]
        for dtype, size in _payload(program, kind, instruction, n).items():
            row = total[kind, dtype, over]
            row[0] += times
            row[1] += times * size
            row[2] += times * least_sent(kind, size, n)
    for times, kind, instruction in _between_slices(program):
        for dtype, size in bytes_by_dtype(program.named[instruction.operands[0]].shape).items():
            row = total[kind, dtype, (SLICES,)]
            row[0] += times
            row[1] += times * size
            row[2] += times * least_sent(kind, size, axes[SLICES])
    rows = [Collective(*key, *row) for key, row in total.items()]
    return sorted(rows, key=lambda row: (-row.sent, row.kind, row.dtype, row.axes))


def least_sent(kind: str, size: int, n: int) -> int:
    """Bytes that each of n chips must send at least for a collective on an array of `size` bytes.

    Chan, Heimlich, Purkayastha and van de Geijn 2007, "Collective communication: theory, practice,
    and experience", lower bounds of section 3: (n-1)/n of the array to gather it, to scatter its
    sums or to exchange it, twice that for sums that all get. A permutation sends it once; a ragged
    exchange is taken to spread evenly.
    """
    if kind == "collective-permute":
        return size
    return (2 if kind == "all-reduce" else 1) * size * (n - 1) // n


def _payload(program: Program, kind: str, instruction: Instruction, n: int) -> dict[str, int]:
    """Bytes of the whole arrays that move, by dtype.

    From the operands, which look the same in every form: a -start's result has them too. An
    all-reduce's never has, and on TPUs it may be of a shorter type than its operands.
    """
    if instruction.opcode.startswith("all-reduce"):
        return bytes_by_dtype(instruction.shape)
    operands = [bytes_by_dtype(program.named[name].shape) for name in instruction.operands]
    if kind == "ragged-all-to-all":  # the rows and room for rows, of which one is mostly empty
        return min(operands[:2], key=lambda sizes: sum(sizes.values()))
    sizes: defaultdict[str, int] = defaultdict(int)
    for operand in operands:
        for dtype, size in operand.items():
            sizes[dtype] += size * (n if kind == "all-gather" else 1)
    return sizes


def _running_collectives(program: Program) -> Iterator[tuple[int, str, Instruction]]:
    """How often, which kind, and the instruction.

    TPUs hide a collective behind computation by fusing it with what runs meanwhile: the same one,
    told by its channel, then stands in several fusions of the same computation. They also write a
    reduce-scatter as a fusion of an all-reduce.
    """
    seen = set()
    for times, callers, instruction in program.running(_CALLERS):
        kind = instruction.opcode.removesuffix("-start")
        if kind not in KINDS:
            continue
        fused = [i for i, name in enumerate(callers) if name.startswith("fusion ")]
        channel = _CHANNEL.search(instruction.rest)
        if fused and channel:
            key = (callers[: fused[0]], channel.group(1))
            if key in seen:
                continue
            seen.add(key)
        if kind == "all-reduce" and callers[-1].startswith("fusion %all-reduce-scatter"):
            kind = "reduce-scatter"
        yield times, kind, instruction


def _between_slices(program: Program) -> Iterator[tuple[int, str, Instruction]]:
    """What a TPU program hands to the runtime that joins slices: written as sends to its host."""
    for times, _, instruction in program.running(_CALLERS):
        kind = _BETWEEN_SLICES.search(instruction.rest) if instruction.opcode == "send" else None
        if kind:
            yield times, kind.group(1).lower().replace("_", "-"), instruction
