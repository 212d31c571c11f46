"""Reads what a TPU's compiled program says of itself: cycles, unestimated work, collectives."""

import math
import re
from collections import Counter
from typing import Any

COLLECTIVES = (
    "ragged-all-to-all",
    "all-to-all",
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "collective-permute",
)
_BITS = {"pred": 8, "s8": 8, "u8": 8, "bf16": 16, "f16": 16, "s32": 32, "u32": 32, "f32": 32}
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_SHAPE = re.compile(r"\b(pred|[sufb]+\d+)\[([\d,]*)\]")
_CALLED = re.compile(r"\b(?:to_apply|body|calls)=(%[\w.\-]+)")
# `name = shape opcode(`; the shape of a tuple is in parentheses.
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?(%\S+) = (.+?) ([a-z][a-z0-9\-]*)\(")


def summary(text: str) -> dict[str, Any]:
    """Sums over the instructions that run, a loop's as often as it goes round.

    Returns:
      cycles: of the instructions that carry an estimate.
      unpriced, unpriced_bytes: gathers, scatters, sorts and kernels that carry none, and the bytes
        of their results, once written and once read: a lower bound of what they move.
      collectives: how many of each kind and dtype.
    """
    computations = _computations(text)
    total: Counter = Counter()
    collectives: Counter = Counter()
    _add(computations, "ENTRY", 1, total, collectives)
    return {
        "cycles": total["cycles"],
        "unpriced": total["unpriced"],
        "unpriced_bytes": total["unpriced_bytes"],
        "collectives": dict(sorted(collectives.items())),
    }


def _computations(text: str) -> dict[str, list[str]]:
    """Lines of each computation, by name; the program itself is "ENTRY"."""
    computations: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        if line.startswith(("%", "ENTRY")):
            current = computations.setdefault(line.split()[0], [])
        elif line.startswith(" "):
            current.append(line)
    return computations


def _add(
    computations: dict[str, list[str]], name: str, times: int, total: Counter, collectives: Counter
) -> None:
    for line in computations.get(name, ()):
        found = _INSTRUCTION.match(line)
        if not found:
            continue
        _, shape, opcode = found.groups()
        cycles = _CYCLES.search(line)
        if cycles:
            total["cycles"] += times * int(cycles.group(1))
        elif _is_unpriced(opcode, line):
            total["unpriced"] += times
            total["unpriced_bytes"] += 2 * times * _bytes(shape)
        kind = opcode.removesuffix("-start")
        if kind in COLLECTIVES:
            collectives[f"{kind} {_SHAPE.search(shape).group(1)}"] += times
        if opcode in ("while", "call"):
            trips = _TRIPS.search(line)
            inner = times * int(trips.group(1)) if trips else times
            for called in _CALLED.findall(line):
                _add(computations, called, inner, total, collectives)


def _is_unpriced(opcode: str, line: str) -> bool:
    if opcode == "fusion":
        return "kind=kCustom" in line
    return opcode in ("gather", "scatter", "sort") or 'custom_call_target="tpu_custom_call"' in line


def _bytes(shape: str) -> int:
    return sum(
        _BITS.get(dtype, 32) // 8 * math.prod(int(n) for n in dims.split(",") if n)
        for dtype, dims in _SHAPE.findall(shape)
    )
