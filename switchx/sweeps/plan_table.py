"""A sweep's plan as a person and a program read it."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from switchx.planning.summary_text import human
from switchx.sweeps.figures import Figures
from switchx.sweeps.folder import Point
from switchx.sweeps.making import Made
from switchx.sweeps.times import Time, own_steps
from switchx.terminal import clock, counted, table

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
        lines = table([*rows, self._last_row()], numbers=range(1, len(head)))
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
                    "seconds": figures.time.seconds if figures.time else None,
                    "seconds_told_by": figures.time.told_by if figures.time else None,
                    "problem": figures.problem,
                }
                for point, figures in self.points
            ],
            **self._totals(),
        }

    def _counts(self) -> str:
        count = len(self.points)
        return f"{counted(count, 'point')} in {self.directory}"

    def _totals(self) -> dict[str, Any]:
        """Of what is to be computed: steps that a fork takes over count once."""
        shares = [(point, own_steps(point) / point.steps) for point, _ in self.points]
        times = [figures.time.seconds for _, figures in self.points if figures.time]
        return {
            "steps": sum(own_steps(point) for point, _ in shares),
            "flops": round(sum(point.flops * share for point, share in shares)),
            "tokens": round(sum(point.tokens * share for point, share in shares)),
            "seconds": sum(times) if len(times) == len(self.points) else None,
        }

    def _last_row(self) -> tuple[str, ...]:
        sums, told = self._totals(), self._told_by() or {"done"}
        time = None if sums["seconds"] is None else Time(sums["seconds"], min(told))
        tokens = human(sums["tokens"], "B").strip()
        return (
            "together",
            "",
            _flops(sums["flops"]),
            f"{sums['steps']:,}",
            tokens,
            "",
            _clock(time),
        )

    def _told_by(self) -> set[str]:
        """What tells the times that are no measured ones."""
        return {figures.time.told_by for _, figures in self.points if figures.time} - {"done"}

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
        forks = [point for point, _ in self.points if point.fork]
        if forks:
            yield (
                f"{len(forks)} points begin with a longer one's checkpoint; together are the steps "
                "that are made"
            )
        for name in sorted(self._told_by()):
            yield _TOLD_BY[name]
        for point, figures in self.points:
            if figures.problem is not None:
                yield f"{point.name} cannot run: {figures.problem}"


def _row(point: Point, figures: Figures) -> tuple[str, ...]:
    held = figures.memory
    return (
        point.name,
        human(point.parameters, "B").strip(),
        _flops(point.flops),
        f"{point.steps:,}",
        human(point.tokens, "B").strip(),
        "?" if held is None else f"{held / 1e9:.2f}" if held >= 1e7 else f"{held / 1e9:.2g}",
        _clock(figures.time),
    )


def _flops(count: float) -> str:
    return f"{count:.3g}"


_TOLD_BY = {
    "bound": "time: >, the least that the device's rates allow",
    "likely": "time: ~, as a plan of the compiled step expects",
    "rate": "time: ~, by the FLOPs a second of the points that are done",
    "same": "time: ~, by the steps of a point with the same program that is done",
}


def _clock(time: Time | None) -> str:
    if time is None:
        return "?"
    return {"done": "", "bound": ">"}.get(time.told_by, "~") + clock(time.seconds)
