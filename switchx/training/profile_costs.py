"""What the steps of a profile spent their time on, read from JAX's trace without TensorBoard."""

import collections
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from switchx.terminal import table

STEP, PAUSE = "train", "pause: "  # annotations in a trace: of a step, of what comes between
MOST = 40  # operations that are listed
# Named scopes of the step, the inner ones behind those they lie in; what is in none is "other".
PARTS = (
    "encoder",
    "decoder",
    "embedding",
    "attention",
    "cross_attention",
    "feed_forward",
    "router",
    "dispatch",
    "experts",
    "combine",
    "logits",
    "loss",
    "optimizer",
)
_ENCLOSING = ("while", "call", "conditional")  # whose time is that of the operations within
_INSTRUCTION = re.compile(r'^ *(?:ROOT )?%?([\w.\-]+) = .*op_name="([^"]*)"', re.MULTILINE)


class Operation(NamedTuple):
    """One run of an operation on a device: nanoseconds since the trace began, and for how long."""

    name: str
    start: float
    duration: float


@dataclasses.dataclass(frozen=True)
class Costs:
    """Of the steps of a profile; seconds are those of a step and device.

    Attributes:
      steps: how many were traced.
      step_seconds: from one to the next, the mean, pauses for evaluation and saving left out.
      busy: share of that time in which any operation ran on any device.
      parts: (forward, backward) seconds by named scope.
      operations: seconds, calls, and the named scope, by name, the costliest first.
    """

    steps: int
    step_seconds: float
    busy: float
    parts: dict[str, tuple[float, float]]
    operations: dict[str, tuple[float, float, str]]

    @classmethod
    def read(cls, trace: Path, program: str, devices: int) -> "Costs":
        """Reads an xplane.pb.

        Args:
          program: the step's compiled text, whose metadata says which scope an operation is of.
          devices: of this host.

        Raises:
          ValueError: there are no steps or operations in it.
        """
        data = jax.profiler.ProfileData.from_file(str(trace))
        said = list(_events(data))
        marked = [(e.start_ns, e.end_ns) for e in said if e.name == STEP]
        paused = sum(e.duration_ns for e in said if e.name.startswith(PAUSE))
        module = program.partition(",")[0].removeprefix("HloModule ")
        done = list(operations(data, module))
        if not marked or not done:
            raise ValueError("the trace has no steps, or no operations")
        return _costs(marked, paused, done, dict(_INSTRUCTION.findall(program)), devices)

    def lines(self, most: int = MOST) -> list[str]:
        """Two tables, of parts and of operations, below a line on the whole."""
        whole = sum(map(sum, self.parts.values()))
        head = (
            f"profile of {self.steps} steps: {self.step_seconds * 1e3:.3f} ms each, in "
            f"{self.busy:.1%} of which an operation ran"
        )
        parts = [
            (part, *(seconds * 1e3 for seconds in times), f"{sum(times) / whole:.1%}")
            for part, times in sorted(self.parts.items(), key=lambda item: -sum(item[1]))
        ]
        costliest = [
            (name, part, seconds * 1e3, f"{seconds / whole:.1%}", f"{calls:.1f}")
            for name, (seconds, calls, part) in list(self.operations.items())[:most]
        ]
        return [
            head,
            *table([("part", "forward ms", "backward ms", "share"), *parts]),
            "",
            *table([("operation", "part", "ms a step", "share", "calls"), *costliest]),
        ]


def operations(data: "jax.profiler.ProfileData", module: str) -> Iterator[Operation]:
    """What a program ran on the devices of a trace, without what encloses others.

    CPUs and GPUs say the operation and program of each event, but for a GPU's kernels within a
    graph of them, which have a name of their own; TPUs have a line for operations.
    """
    for plane in data.planes:
        of_device = plane.name.startswith("/device:")
        for line in plane.lines:
            for event in line.events:
                said = dict(event.stats)
                name = said.get("hlo_op")
                if said.get("hlo_module", module) != module:
                    continue
                if name is None and of_device and line.name.startswith(("XLA Ops", "Stream")):
                    name = event.name.split(" = ")[0].lstrip("%")
                if name and str(name).split(".")[0] not in _ENCLOSING:
                    yield Operation(str(name), event.start_ns, event.duration_ns)


def _events(data: "jax.profiler.ProfileData") -> Iterator:
    plane = data.find_plane_with_name("/host:CPU")
    for line in plane.lines if plane else ():
        yield from line.events


def _costs(
    marked: list[tuple[float, float]],
    paused: float,
    done: list[Operation],
    scopes: dict[str, str],
    devices: int,
) -> Costs:
    began = min(start for start, _ in marked)
    ended = max(*(end for _, end in marked), *(each.start + each.duration for each in done))
    lasted = ended - began - paused
    per_step = 1e-9 / len(marked) / devices
    parts: dict[str, list[float]] = collections.defaultdict(lambda: [0.0, 0.0])
    total: dict[str, float] = collections.defaultdict(float)
    calls: collections.Counter[str] = collections.Counter()
    for each in done:
        scope = scopes.get(each.name, "")
        parts[part_of(scope)]["transpose(" in scope] += each.duration * per_step
        total[each.name] += each.duration * per_step
        calls[each.name] += 1
    costliest = {
        name: (seconds, calls[name] / len(marked) / devices, part_of(scopes.get(name, "")))
        for name, seconds in sorted(total.items(), key=lambda item: -item[1])[:MOST]
    }
    return Costs(
        steps=len(marked),
        step_seconds=lasted * 1e-9 / len(marked),
        busy=_covered(done) / lasted,
        parts={part: (forward, backward) for part, (forward, backward) in parts.items()},
        operations=costliest,
    )


def part_of(scope: str) -> str:
    """The innermost named scope of PARTS in a path such as jit(f)/transpose(jvp(encoder))/mul."""
    within = [word for word in re.split(r"[/()]", scope) if word in PARTS]
    return within[-1] if within else "other"


def _covered(done: list[Operation]) -> float:
    """Nanoseconds in which at least one operation ran."""
    spans = np.array(sorted((each.start, each.start + each.duration) for each in done))
    reached = np.maximum.accumulate(np.concatenate([spans[:1, 0], spans[:-1, 1]]))
    return float(np.maximum(spans[:, 1] - np.maximum(spans[:, 0], reached), 0).sum())
