"""The paper's figures from a user's own runs: what is drawn, apart from how.

A page and a picture draw the same value. A figure appears where the runs have what it needs; else
what it lacks is said.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from switchx.checks import is_number
from switchx.reports.groups import Estimate, Group, experts_in_words, in_words
from switchx.reports.runs import LeftOut, RunRecord
from switchx.reports.speedups import SpeedUp, families, over_larger

TIMES = "\u00d7"
LOSSES = {
    "validation_loss": "validation loss (nats per token)",
    "train_loss": "training loss (nats per token)",
}
# What a model with experts shows of them: title, axis, what is to be read in it.
OF_EXPERTS = {
    "most_used": (
        "Load of the fullest expert",
        "load, in even shares",
        "Of all experts of all layers. 1 is an even share; what is above the capacity factor is "
        "dropped.",
    ),
    "dead": (
        "Experts next to unused",
        "share of experts",
        "Experts with less than an eighth of an even share, over all layers.",
    ),
    "dropped": (
        "Tokens dropped",
        "share of tokens",
        "Tokens that found no slot in their expert, mean over layers.",
    ),
    "entropy": (
        "Router entropy",
        "share of the most there can be",
        "1 is a router that knows no difference between experts; mean over layers.",
    ),
}


@dataclasses.dataclass(frozen=True)
class Axis:
    """What is along it.

    Attributes:
      of: of curves: "step", "tokens", "flops" or "seconds"; else "".
      choices: what else it can be, by the reader's choice.
      names: what stands at 0, 1, ... in the place of numbers.
    """

    label: str
    log: bool = False
    of: str = ""
    choices: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Point:
    """One in a figure; `low` and `high` are the ends of its interval."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    run: str = ""


@dataclasses.dataclass(frozen=True)
class Series:
    """Points as `dots`, `points`, `means` with intervals, a `line`, or a `band` between ends; as
    `stems` from low to high; as `bars` of a width from 0."""

    name: str
    style: str
    points: tuple[Point, ...]
    group: str | None = None
    width: float | None = None


@dataclasses.dataclass(frozen=True)
class Mark:
    """A point on the curves of a group, and what is said there."""

    group: str
    step: float
    y: float
    text: str


@dataclasses.dataclass(frozen=True)
class Level:
    """A line at a height over the whole width."""

    y: float
    text: str
    group: str | None = None


@dataclasses.dataclass(frozen=True)
class Figure:
    """One figure: either a `curve` of the runs of some groups over training, or series of points.

    Attributes:
      id: its name in the page and of its picture's file.
      groups: whose curves are drawn.
    """

    id: str
    title: str
    caption: str
    x: Axis
    y: Axis
    curve: str | None = None
    groups: tuple[str, ...] = ()
    series: tuple[Series, ...] = ()
    marks: tuple[Mark, ...] = ()
    levels: tuple[Level, ...] = ()


def figures(
    groups: Sequence[Group], speed_ups: Sequence[SpeedUp]
) -> tuple[list[Figure], list[LeftOut]]:
    """Everything but what is against time."""
    found: list[Figure] = []
    left_out: list[LeftOut] = []
    for made in (
        against_parameters(groups),
        against_steps(groups, speed_ups),
        against_larger(groups),
        *against_settings(groups),
        *of_experts(groups),
    ):
        if isinstance(made, Figure):
            found.append(made)
        else:
            left_out.append(made)
    return found, left_out


def time_figures(
    groups: Sequence[Group], speed_ups: Sequence[SpeedUp]
) -> tuple[list[Figure], list[LeftOut]]:
    """What is against time (figures 5 and 6 right)."""
    slow = [run.name for group in groups for run in group.runs if run.seconds_per_step is None]
    if slow:
        return [], [LeftOut("loss against time", f"no training rate was measured of {slow[0]}")]
    figure = against_steps(groups, speed_ups)
    by_time = dataclasses.replace(
        figure,
        id="time",
        title="Loss against time (figure 5)",
        caption="A run's seconds are its steps times the median of its own seconds a step: pauses, "
        "interruptions and compiling have no part in them. Runs on other machines are not "
        "comparable.",
        x=Axis("training time (s)", of="seconds"),
        marks=(),
    )
    return [by_time], []


def against_parameters(groups: Sequence[Group]) -> Figure | LeftOut:
    """Figures 1 and 4 left: one point a run, means of seeds joined by a line."""
    title = "Loss against parameters (figures 1 and 4, left)"
    if len({group.size.parameters for group in groups}) < 2:
        return LeftOut(title, "all runs have the same number of parameters")
    joined = [(in_words(family[0].family), family) for family in families(groups)]
    return Figure(
        "parameters",
        title,
        "All parameters, every expert's included, at the end of training; groups that differ in "
        "their experts alone are joined. Bars are 95 % intervals over seeds.",
        Axis("parameters", log=True),
        Axis(LOSSES[groups[0].loss]),
        series=_scaling(groups, joined, lambda run: float(run.size.parameters)),
    )


def _scaling(
    groups: Sequence[Group], joined: Sequence[tuple[str, Sequence[Group]]], x_of: Any
) -> tuple[Series, ...]:
    """Dots of runs, means of groups, lines along those that are joined."""
    found = []
    for name, family in joined:
        points = [(x_of(g.runs[0]), float(np.mean(g.final_losses()))) for g in family]
        if len(points) > 1:
            found.append(Series(name, "line", tuple(Point(x, y) for x, y in sorted(points))))
    for group in groups:
        losses = group.final_losses()
        mean = Estimate.of(losses)
        point = Point(x_of(group.runs[0]), mean.mean, mean.low, mean.high)
        if len(losses) > 1:
            dots = tuple(
                Point(x_of(run), loss, run=run.name)
                for run, loss in zip(group.runs, losses, strict=True)
            )
            found.append(Series(group.name, "dots", dots, group.name))
        else:
            point = dataclasses.replace(point, run=group.runs[0].name)
        found.append(Series(group.name, "means", (point,), group.name))
    return tuple(found)


def against_steps(groups: Sequence[Group], speed_ups: Sequence[SpeedUp]) -> Figure:
    """Figure 4 right: where each curve comes to the loss at which its baseline ends."""
    levels = {s.baseline: Level(s.loss, f"{s.baseline} ends here", s.baseline) for s in speed_ups}
    speed = " Dotted is the loss at which a baseline ends; marks say how many times sooner the "
    speed += "others come to it."
    return Figure(
        "steps",
        "Loss against steps (figure 4, right)",
        "One curve a run; the runs of a group share its colour." + (speed if levels else ""),
        Axis("step", of="step", choices=("step", "tokens", "flops")),
        Axis(LOSSES[groups[0].loss], log=False),
        curve="loss",
        groups=tuple(group.name for group in groups),
        marks=_marks(speed_ups),
        levels=tuple(levels.values()),
    )


def _marks(speed_ups: Sequence[SpeedUp]) -> tuple[Mark, ...]:
    """Where each came to its baseline's loss, and how many times sooner."""
    return tuple(
        Mark(s.group, s.own_steps, s.loss, f"{s.steps.mean:.3g}{TIMES}")
        for s in speed_ups
        if s.steps is not None and s.own_steps is not None
    )


def against_larger(groups: Sequence[Group]) -> Figure | LeftOut:
    """Figure 6: a model with experts, and a dense one of more FLOPs."""
    title = "Against a larger dense model (figure 6)"
    found = over_larger(groups)
    if not found:
        return LeftOut(title, "no dense run has more FLOPs a token than one with experts")
    by_name = {group.name: group for group in groups}
    pairs: dict[str, SpeedUp] = {}  # of each larger model, with the most experts beside it
    for one in found:
        before = pairs.get(one.baseline)
        if before is None or by_name[before.group].num_experts < by_name[one.group].num_experts:
            pairs[one.baseline] = one
    names = dict.fromkeys(name for s in pairs.values() for name in (s.group, s.baseline))
    return Figure(
        "larger",
        title,
        "The most experts beside the next larger dense model. " + "; ".join(_flops(pairs, by_name)),
        Axis("step", of="step", choices=("step", "tokens", "flops")),
        Axis(LOSSES[groups[0].loss]),
        curve="loss",
        groups=tuple(names),
        marks=_marks(list(pairs.values())),
        levels=tuple(Level(s.loss, f"{s.baseline} ends here", s.baseline) for s in pairs.values()),
    )


def _flops(pairs: dict[str, SpeedUp], by_name: dict[str, Group]) -> list[str]:
    return [
        f"{s.baseline} has {_ratio(by_name[s.baseline], by_name[s.group]):.2g} times the FLOPs a "
        f"token of {s.group}"
        for s in pairs.values()
    ]


def _ratio(one: Group, other: Group) -> float:
    def per_token(group: Group) -> float:
        return group.size.flops_per_step / group.size.tokens_per_step

    return per_token(one) / per_token(other)


def against_settings(groups: Sequence[Group]) -> list[Figure]:
    """The loss against each number that varies beside the experts, all else alike."""
    numbers = {name for group in groups for name, value in group.family if is_number(value)}
    found = []
    for name in sorted(numbers):
        having = [group for group in groups if name in dict(group.family)]
        values = {dict(group.family)[name] for group in having}
        if len(values) > 1:
            found.append(_against_setting(name, having, values))
    return found


def _against_setting(name: str, groups: Sequence[Group], values: set[float]) -> Figure:
    value_of = {run.name: float(dict(g.family)[name]) for g in groups for run in g.runs}

    def x_of(run: RunRecord) -> float:
        return value_of[run.name]

    alike: dict[Any, list[Group]] = {}
    for group in groups:
        rest = tuple(item for item in group.family if item[0] != name)
        alike.setdefault((rest, group.num_experts), []).append(group)
    several = len({group.num_experts for group in groups}) > 1
    joined = [(_of_line(key[0], key[1], several), line) for key, line in alike.items()]
    positive = min(values) > 0
    return Figure(
        f"setting-{name.lower().replace('.', '-')}",
        f"Loss against {name}",
        "At the end of training; runs that differ in nothing else are joined. Bars are 95 % "
        "intervals over seeds.",
        Axis(name, log=positive and max(values) > 4 * min(values)),
        Axis(LOSSES[groups[0].loss]),
        series=_scaling(groups, joined, x_of),
    )


def _of_line(rest: tuple, experts: int, several: bool) -> str:
    """What the groups on a line have in common."""
    words = [in_words(rest)] if rest else []
    return ", ".join([*words, experts_in_words(experts)] if several else words)


def of_experts(groups: Sequence[Group]) -> list[Figure | LeftOut]:
    """Loads, drops and the router's entropy over training."""
    found: list[Figure | LeftOut] = []
    for name, (title, label, caption) in OF_EXPERTS.items():
        having = [group for group in groups if any(name in run.curves for run in group.runs)]
        if not having:
            found.append(LeftOut(title, "no run has experts whose use was measured"))
            continue
        found.append(
            Figure(
                f"experts-{name.replace('_', '-')}",
                title,
                caption,
                Axis("step", of="step", choices=("step", "tokens")),
                Axis(label),
                curve=name,
                groups=tuple(group.name for group in having),
            )
        )
    return found
