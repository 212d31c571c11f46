"""HLO text, as XLA prints a compiled program, taken apart: what runs and how often."""

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterator

from switchx.model.dispatch.sorted_blocks import rows_of

# `name = shape opcode(`; the shape of a tuple is in parentheses.
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?(%\S+) = (.+?) ([a-z][a-z0-9\-]*)\((.*)")
_NAME = re.compile(r"%[\w.\-]+")
_CALLED = re.compile(r"\b(?:to_apply|body|calls|\w+_computations?)=\{?((?:%[\w.\-]+(?:, )?)+)")
_LOOP = re.compile(r"condition=(%[\w.\-]+), body=(%[\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_INDEX = re.compile(r"\bindex=(\d+)")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d\w*)\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line; `rest` is what follows the opening parenthesis: operands and attributes."""

    name: str
    shape: str
    opcode: str
    rest: str

    @property
    def operands(self) -> list[str]:
        """Their names."""
        return _NAME.findall(self.rest[: self.rest.find(")")])

    @property
    def called(self) -> list[str]:
        """Names of the computations that it runs, a loop's condition excepted."""
        return [name for names in _CALLED.findall(self.rest) for name in _NAME.findall(names)]


class Program:
    """A program's computations, each a list of instructions by its name, and all instructions."""

    def __init__(self, text: str):
        self.computations: dict[str, list[Instruction]] = {}
        current: list[Instruction] = []
        for line in text.splitlines():
            if line.startswith(("%", "ENTRY")):
                current = self.computations.setdefault(line.split()[0], [])
            elif found := _INSTRUCTION.match(line):
                current.append(Instruction(*found.groups()))
        self.named = {each.name: each for rows in self.computations.values() for each in rows}

    def running(
        self, into: Collection[str], callers: tuple[str, ...] = ("ENTRY",), times: int = 1
    ) -> Iterator[tuple[int, tuple[str, ...], Instruction]]:
        """Every instruction that runs, with how often and the computations that it is in.

        The outermost comes first, and each after it is named "opcode %computation" by the opcode
        of its caller. All branches of a conditional run.

        Args:
          into: opcodes of callers whose computations are looked into.
        """
        for instruction in self.computations.get(callers[-1].split()[-1], ()):
            yield times, callers, instruction
            if instruction.opcode in into:
                inner = times * (self.trips(instruction) if instruction.opcode == "while" else 1)
                for name in instruction.called:
                    inside = (*callers, f"{instruction.opcode} {name}")
                    yield from self.running(into, inside, inner)

    def trips(self, loop: Instruction) -> int:
        """How often a loop goes round; 1 where that cannot be read off.

        CPUs and GPUs say so. For TPUs: from its counter's start, step and limit, where it is as
        JAX writes it. Over blocks of an expert's rows as often as where all experts have as many.
        """
        if rows := rows_of(loop.rest):
            share, block = rows
            return -(-share // block)
        if found := _TRIPS.search(loop.rest):
            return int(found.group(1))
        names = _LOOP.search(loop.rest)
        if not names:
            return 1
        condition, body = (self.computations[name][-1] for name in names.groups())
        if condition.opcode != "compare" or "direction=LT" not in condition.rest:
            return 1
        counter = self.named[condition.operands[0]]
        at = _INDEX.search(counter.rest)
        start, after = self.named[loop.operands[0]], body
        if not at or start.opcode != "tuple" or after.opcode != "tuple":
            return 1
        added = self.named[after.operands[int(at.group(1))]]
        ends = (start.operands[int(at.group(1))], condition.operands[1], added.operands[-1])
        first, limit, step = map(self._constant, ends)
        if first is None or limit is None or not step or added.opcode != "add":
            return 1
        return -(-(limit - first) // step)

    def _constant(self, name: str) -> int | None:
        instruction = self.named[name]
        while instruction.opcode == "copy":
            instruction = self.named[instruction.operands[0]]
        value = instruction.rest.split(")")[0]
        return int(value) if instruction.opcode == "constant" and value.isdigit() else None


def bytes_by_dtype(shape: str) -> dict[str, int]:
    """Of an array or a tuple of arrays in HLO's notation, such as bf16[8,128]{1,0}."""
    sizes: defaultdict[str, int] = defaultdict(int)
    for dtype, dims in _ARRAY.findall(shape):
        bits = re.search(r"\d+", dtype)
        number = math.prod(int(n) for n in dims.split(",") if n)
        sizes[dtype] += -(-number * (int(bits.group()) if bits else 8) // 8)
    return sizes
