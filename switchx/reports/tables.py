"""The tables of a report: the same cells in a page, in CSV and on a terminal."""

import csv
import dataclasses
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from switchx.checks import is_number
from switchx.reports.each_task import AT_LEAST
from switchx.reports.groups import EXPERTS, SEED

_INTERVALS = "Intervals are 95 % ones by Student's t over seeds, of ratios in their logarithms."


@dataclasses.dataclass(frozen=True)
class Cell:
    """What is shown, and the number behind it with the ends of its interval, if there are any."""

    text: str
    value: float | int | None = None
    ends: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
      id: its name in the page and of its file.
      timed: whether it rests on a clock.
    """

    id: str
    title: str
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    timed: bool = False

    def number_columns(self) -> list[bool]:
        """Of each column whether all that it says is a number."""
        return [
            any(c.value is not None for c in column)
            and all(c.value is not None or not c.text for c in column)
            for column in zip(*self.rows, strict=True)
        ]

    def csv(self) -> str:
        """The same for programs: numbers as they are, the columns of an interval apart."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        with_ends = [any(c.ends for c in column) for column in zip(*self.rows, strict=True)]
        heads = ([h, f"{h} low", f"{h} high"] for h in self.head)
        writer.writerow(_flat(heads, with_ends))
        for row in self.rows:
            parts = ([c.text if c.value is None else c.value, *(c.ends or ("", ""))] for c in row)
            writer.writerow(_flat(parts, with_ends))
        return out.getvalue()


def _flat(columns: Iterable[list], with_ends: Sequence[bool]) -> list[Any]:
    """The parts of each column in one row, those of intervals where the column has any."""
    pairs = zip(columns, with_ends, strict=True)
    return [part for column, ends in pairs for part in column[: 3 if ends else 1]]


def tables(document: Mapping[str, Any]) -> list[Table]:
    """All tables of a report, in their order."""
    found = [_differences(document)] if document["differences"] else []
    if document["equal_steps"]:
        found.append(_equal_steps(document))
    found.append(_losses(document))
    if document["speed_ups"]:
        found.append(_speed_ups("speed-ups", document, document["speed_ups"]))
    if document["over_larger"]:
        found.append(_speed_ups("over-larger", document, document["over_larger"]))
    if document["tasks"]:
        found += [_tasks_together(document), _tasks(document)]
    timed = _time(document)
    found += [timed] if timed else []
    if document["laws"]:
        found += [_coefficients(document), _fits(document)]
    return [*found, _runs(document)]


def _differences(document: Mapping[str, Any]) -> Table:
    head = ("setting", *(run["name"] for run in document["runs"]))
    rows = tuple(
        (Cell(one["name"]), *(Cell(value) for value in one["values"]))
        for one in document["differences"]
    )
    return Table("differences", "Settings that differ", "All others are the same.", head, rows)


def _equal_steps(document: Mapping[str, Any]) -> Table:
    names = [group["name"] for group in document["groups"]]
    two = len(names) == 2
    head = ("step", *names, *(("difference",) if two else ()))
    rows = []
    for one in document["equal_steps"]:
        losses = one["losses"]
        row = (count(one["step"]), *(Cell(f"{loss:.4f}", loss) for loss in losses))
        between = losses[-1] - losses[0]
        rows.append((*row, Cell(f"{between:+.4f}", between)) if two else row)
    caption = "Between two measurements by a straight line."
    return Table("equal-steps", "Loss at equal steps", caption, head, tuple(rows))


def _losses(document: Mapping[str, Any]) -> Table:
    """A row for each group."""
    several = any(len(group["runs"]) > 1 for group in document["groups"])
    head: tuple[str, ...] = ("configuration", "loss")
    head += ("95 % interval", "seeds") if several else ()
    head += ("experts", "parameters", "a token uses", "FLOPs a step", "tokens a step", "steps")
    steps = {run["name"]: run["steps"] for run in document["runs"]}
    rows = []
    for group in document["groups"]:
        loss = group["final_loss"]
        spread = (Cell(interval(loss)), count(loss["seeds"])) if several else ()
        rows.append(
            (
                Cell(group["name"]),
                Cell(f"{loss['mean']:.4f}", loss["mean"], _ends(loss)),
                *spread,
                count(group["experts"]),
                short(group["parameters"]),
                short(group["parameters_per_token"]),
                short(group["flops_per_step"]),
                short(group["tokens_per_step"]),
                count(max(steps[name] for name in group["runs"])),
            )
        )
    return Table("losses", "Loss at the end", "", head, tuple(rows))


def _speed_ups(id_: str, document: Mapping[str, Any], found: Sequence[Mapping]) -> Table:
    larger = id_ == "over-larger"
    title = "Over a larger dense model" if larger else "Speed-up to equal loss"
    caption = (
        "How many times sooner a configuration comes to the loss at which its baseline ends, seed "
        "by seed; between two measurements by a straight line. " + _INTERVALS
    )
    head: tuple[str, ...] = ("configuration", "baseline", "loss", "baseline's steps", "own steps")
    head += ("in steps", "in tokens", "in FLOPs", "reached by")
    rows = []
    for one in found:
        own = one["own_steps"]
        rows.append(
            (
                Cell(one["group"]),
                Cell(one["baseline"]),
                Cell(f"{one['loss']:.4f}", one["loss"]),
                count(round(one["baseline_steps"])),
                Cell("not reached") if own is None else count(round(own)),
                *(ratio(one[name], one) for name in ("steps", "tokens", "flops")),
                Cell(f"{one['reached']} of {one['runs']}"),
            )
        )
    return Table(id_, title, caption, head, tuple(rows))


def _tasks_together(document: Mapping[str, Any]) -> Table:
    """A row for each configuration but the first."""
    head: tuple[str, ...] = ("configuration", "baseline", "tasks", "better in", "mean gain")
    head += ("mean speed-up", f"at least {AT_LEAST:g}\u00d7", "never reached in")
    rows = tuple(
        (
            Cell(one["group"]),
            Cell(one["baseline"]),
            count(one["tasks"]),
            count(one["better"]),
            Cell(f"{one['mean_gain']:+.4f}", one["mean_gain"]),
            _times(one["mean_speed_up"]),
            Cell(f"{one['at_least']:.0%}", one["at_least"]),
            count(one["tasks"] - one["reached"]),
        )
        for one in document["tasks_together"]
    )
    caption = (
        "Each task counts as one. Gains are nats per token at the end; speed-ups are in steps to "
        "the loss at which the baseline ends on a task, their mean over those that came to it."
    )
    return Table("tasks-together", "All tasks together", caption, head, rows)


def _tasks(document: Mapping[str, Any]) -> Table:
    several = len(document["tasks_together"]) > 1
    head: tuple[str, ...] = ("task", *(("configuration",) if several else ()))
    head += ("baseline's loss", "loss", "gain", "own steps", "speed-up in steps")
    rows = tuple(
        (
            Cell(one["task"]),
            *((Cell(one["group"]),) if several else ()),
            Cell(f"{one['baseline_loss']:.4f}", one["baseline_loss"]),
            Cell(f"{one['loss']:.4f}", one["loss"]),
            Cell(f"{one['gain']:+.4f}", one["gain"]),
            Cell("not reached") if one["own_steps"] is None else count(round(one["own_steps"])),
            _times(one["speed_up"]),
        )
        for one in document["tasks"]
    )
    return Table("tasks", "Each task", "The most gained first.", head, rows)


def _times(speed_up: float | None) -> Cell:
    return Cell("not reached") if speed_up is None else Cell(f"{speed_up:.2f}\u00d7", speed_up)


def _time(document: Mapping[str, Any]) -> Table | None:
    clock = document["time"]
    whole = {(s["group"], s["baseline"]): s for s in _all_speed_ups(document)}
    rows = tuple(
        (
            Cell(one["group"]),
            Cell(one["baseline"]),
            ratio(one["time"], whole[one["group"], one["baseline"]], "rate not measured"),
        )
        for one in clock["speed_ups"]
    )
    if not rows:
        return None
    caption = "The same in time, by each run's own training rate. " + _INTERVALS
    head = ("configuration", "baseline", "in time")
    return Table("time", "Speed-up in time", caption, head, rows, timed=True)


def _coefficients(document: Mapping[str, Any]) -> Table:
    head = ("law", "coefficient", "value", "95 % interval", "standard error")
    rows = tuple(
        (
            Cell(law["title"]),
            Cell(name),
            Cell(f"{one['value']:.5g}", one["value"], (one["low"], one["high"])),
            Cell(f"{one['low']:.4g} to {one['high']:.4g}"),
            Cell(f"{one['standard_error']:.3g}", one["standard_error"]),
        )
        for law in document["laws"]
        for name, one in law["coefficients"].items()
    )
    caption = (
        "Intervals are percentiles over resamples of the runs. N are the parameters that a token "
        "uses, embeddings counted and routers not; D are all tokens, inputs, targets and padding."
    )
    return Table("laws", "Coefficients of the laws", caption, head, rows)


def _fits(document: Mapping[str, Any]) -> Table:
    head = ("law", "form", "runs", "error", "held-out error", "remarks")
    rows = []
    for law in document["laws"]:
        held_out = law["held_out"]
        remarks = [*law["notes"], f"minimised: {law['fitting_loss']}, from {law['starts']} starts"]
        remarks += [f"held out: {held_out['how']}"] if held_out else []
        remarks += [f"left out: {one['run']}, {one['why']}" for one in law["left_out"]]
        rows.append(
            (
                Cell(law["title"]),
                Cell(law["form"]),
                count(len(law["points"])),
                Cell(f"{law['error']:.2%}", law["error"]),
                Cell(f"{held_out['error']:.2%}", held_out["error"]) if held_out else Cell("none"),
                Cell("; ".join(remarks)),
            )
        )
    caption = (
        "Errors are root mean squares of ln (measured / predicted); the held-out one is of the "
        "largest runs, by the law fitted without them."
    )
    return Table("fits", "How well the laws fit", caption, head, tuple(rows))


def _all_speed_ups(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from document["speed_ups"]
    yield from document["over_larger"]


def _runs(document: Mapping[str, Any]) -> Table:
    varied = dict.fromkeys(name for run in document["runs"] for name in run["varied"])
    settings = [name for name in varied if name not in (EXPERTS, SEED)]  # of columns of their own
    head = ("run", *settings, "seed", "experts", "steps", "final loss", "best loss", "parameters")
    rows = tuple(
        (
            Cell(run["name"]),
            *(_setting(run["varied"].get(name)) for name in settings),
            count(run["seed"]),
            count(run["experts"]),
            count(run["steps"]),
            Cell(f"{run['final_loss']:.4f}", run["final_loss"]),
            Cell(f"{run['best_loss']:.4f}", run["best_loss"]),
            short(run["parameters"]),
        )
        for run in document["runs"]
    )
    return Table("runs", "All runs", "", head, rows)


def _setting(value: Any) -> Cell:
    return Cell("" if value is None else str(value), value if is_number(value) else None)


def count(value: int) -> Cell:
    """A whole number."""
    return Cell(f"{value:,}", value)


def short(value: float) -> Cell:
    """A large number in three digits."""
    for size, unit in ((1e15, None), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            by = 1e3 if unit == "k" else size
            return Cell(f"{value / by:.3g}{unit}" if unit else f"{value:.2e}", value)
    return Cell(f"{value:,}", value)


def interval(estimate: Mapping[str, Any], digits: int = 4) -> str:
    """The ends of an interval; "" of one seed."""
    if estimate["low"] is None:
        return ""
    return f"{estimate['low']:.{digits}f} to {estimate['high']:.{digits}f}"


def ratio(
    estimate: Mapping[str, Any] | None, speed_up: Mapping[str, Any], why: str = "not reached"
) -> Cell:
    """A speed-up with its interval, or that not all seeds came to the loss."""
    if estimate is None:
        return Cell("not reached" if speed_up["reached"] < speed_up["runs"] else why)
    ends = f" ({estimate['low']:.2f} to {estimate['high']:.2f})" if estimate["low"] else ""
    return Cell(f"{estimate['mean']:.2f}\u00d7{ends}", estimate["mean"], _ends(estimate))


def _ends(estimate: Mapping[str, Any]) -> tuple[float, float] | None:
    return None if estimate["low"] is None else (estimate["low"], estimate["high"])
