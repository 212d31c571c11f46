"""A sweep's plan as a person and a program read it."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from switchx.planning.summary_text import human
from switchx.sweeps.figures import Figures
from switchx.sweeps.folder import Point
from switchx.sweeps.making import Made
from switchx.terminal import clock, table

if TYPE_CHECKING:
    from switchx.planning.topology import Topology


@dataclasses.dataclass(frozen=True)
class Planned:
    """A plan.

    Attributes:
      name: of the sweep; directory: of its folder.
      counted: which FLOPs count beside those of layers.
      topology: what was planned for.
      points: with the figures of each.
    """

    name: str
    directory: str
    counted: tuple[str, ...]
    topology: str | None
    points: tuple[tuple[Point, Figures], ...]

    @classmethod
    def of(cls, made: Made, figures: Sequence[Figures], topology: "Topology | None") -> "Planned":
        folder = made.folder
        return cls(
            folder.name,
            str(folder.path),
            folder.counted,
            topology.name if topology else None,
            tuple(zip(folder.points, figures, strict=True)),
        )

    def text(self) -> str:
        """The table, its totals, and what the figures are."""
        head = ("point", "parameters", "FLOPs", "steps", "tokens", "GB a device", "time")
        rows = [head, *(_row(point, figures) for point, figures in self.points)]
        lines = table([*rows, self._totals()])
        return "\n".join([f"{self.name}: {self._counts()}", "", *lines, "", *self._notes()])

    def form(self) -> dict[str, Any]:
        """One JSON object."""
        return {
            "name": self.name,
            "sweep_dir": self.directory,
            "counted": list(self.counted),
            "topology": self.topology,
            "points": [
                dataclasses.asdict(point)
                | {
                    "memory_per_device": figures.memory,
                    "memory_is_whole": figures.whole,
                    "step_seconds": figures.seconds,
                    "seconds": _time(point, figures),
                    "problem": figures.problem,
                }
                for point, figures in self.points
            ],
            "flops": sum(point.flops for point, _ in self.points),
            "tokens": sum(point.tokens for point, _ in self.points),
            "seconds": _sum(_time(*each) for each in self.points),
        }

    def _counts(self) -> str:
        count = len(self.points)
        return f"{count} point{'s' if count != 1 else ''} in {self.directory}"

    def _totals(self) -> tuple[str, ...]:
        points = [point for point, _ in self.points]
        time = _sum(_time(*each) for each in self.points)
        return (
            "together",
            "",
            human(sum(point.flops for point in points)).strip(),
            f"{sum(point.steps for point in points):,}",
            human(sum(point.tokens for point in points), "B").strip(),
            "",
            _clock(time),
        )

    def _notes(self) -> Iterable[str]:
        parts = {
            "logits": "the logits",
            "router": "the routers' products",
        }
        counted = " and ".join(text for name, text in parts.items() if name in self.counted)
        yield (
            f"FLOPs: forward and backward of all steps, {counted or 'neither logits nor routers'} "
            "counted besides layers"
        )
        if not all(figures.whole for _, figures in self.points):
            yield "GB a device: parameters, optimizer, gradients and batch; activations on top"
        for point, figures in self.points:
            if figures.problem is not None:
                yield f"{point.name} cannot run: {figures.problem}"


def _row(point: Point, figures: Figures) -> tuple[str, ...]:
    held = figures.memory
    return (
        point.name,
        human(point.parameters, "B").strip(),
        human(point.flops).strip(),
        f"{point.steps:,}",
        human(point.tokens, "B").strip(),
        "?" if held is None else f"{held / 1e9:.2f}" if held >= 1e7 else f"{held / 1e9:.2g}",
        _clock(_time(point, figures)),
    )


def _time(point: Point, figures: Figures) -> float | None:
    return None if figures.seconds is None else point.steps * figures.seconds


def _clock(seconds: float | None) -> str:
    return "?" if seconds is None else clock(seconds)


def _sum(values: Iterable[float | None]) -> float | None:
    """None where one is not known."""
    found = list(values)
    known = [value for value in found if value is not None]
    return sum(known) if len(known) == len(found) else None
