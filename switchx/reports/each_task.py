"""Runs of a mixture compared task by task: figures 7 and 8 of the paper (section 4.3)."""

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np

from switchx.reports.figures import LOSSES, TIMES, Axis, Figure, Point, Series
from switchx.reports.groups import Group
from switchx.reports.runs import LeftOut
from switchx.reports.speedups import speed_up

AT_LEAST = 4.0  # times as fast: what the paper gives the share of languages for
TITLE = "Loss of each task (figures 7 and 8)"
_LOSS = "validation_loss"
_MOST_BARS = 20


@dataclasses.dataclass(frozen=True)
class TaskResult:
    """What a group comes to on one task, beside its baseline.

    Attributes:
      task, name: as it is registered, and as figures call it.
      group, baseline: names.
      baseline_loss, loss: at the end, nats per token, means over seeds.
      gain: the difference, of negative log perplexities: above 0 the group is better.
      own_steps: to the loss at which the baseline ends, a mean over seeds; None where not all of
        its runs came to it.
      speed_up: the baseline's steps to that loss over these, a geometric mean; None likewise.
    """

    task: str
    name: str
    group: str
    baseline: str
    baseline_loss: float
    loss: float
    gain: float
    own_steps: float | None
    speed_up: float | None


@dataclasses.dataclass(frozen=True)
class TasksSummary:
    """All tasks of a group together.

    Attributes:
      better: tasks of the `tasks` with a gain.
      mean_gain: nats per token.
      reached: tasks in which it came to its baseline's loss.
      mean_speed_up: over those; None where there are none.
      at_least: share of all tasks that are AT_LEAST times as fast.
    """

    group: str
    baseline: str
    tasks: int
    better: int
    mean_gain: float
    reached: int
    mean_speed_up: float | None
    at_least: float


def by_task(groups: Sequence[Group]) -> list[TaskResult]:
    """Each group over the first, on the tasks that all runs evaluated alone; most gained first."""
    runs = [run for group in groups for run in group.runs]
    tasks = [task for task in runs[0].tasks if all(task in run.tasks for run in runs)]
    names = _names(tasks)
    found = [
        _result(task, names[task], _on(group, task), _on(groups[0], task))
        for group in groups[1:]
        for task in tasks
    ]
    most = {one.task: -one.gain for one in reversed(found)}  # of the first group but the baseline
    return sorted(found, key=lambda one: (most[one.task], one.task))


def _on(group: Group, task: str) -> Group:
    """The same runs with the loss of one task for their own."""
    runs = tuple(dataclasses.replace(r, curves={_LOSS: r.tasks[task]}) for r in group.runs)
    return dataclasses.replace(group, runs=runs, loss=_LOSS)


def _result(task: str, name: str, group: Group, baseline: Group) -> TaskResult:
    before, loss = (float(np.mean(of.final_losses())) for of in (baseline, group))
    found = speed_up(group, baseline)
    return TaskResult(
        task,
        name,
        group.name,
        baseline.name,
        baseline_loss=before,
        loss=loss,
        gain=before - loss,
        own_steps=found.own_steps,
        speed_up=None if found.steps is None else found.steps.mean,
    )


def _names(tasks: Sequence[str]) -> dict[str, str]:
    """Names without the words that all begin or end with: mc4_de_span_corruption is "de"."""
    words = [task.split("_") for task in tasks]
    most = min(map(len, words), default=1) - 1 if len(tasks) > 1 else 0  # something is left of each
    first = min(_in_common(words), most)
    last = min(_in_common([of[::-1] for of in words]), most - first)
    return {t: "_".join(of[first : len(of) - last]) for t, of in zip(tasks, words, strict=True)}


def _in_common(words: Sequence[Sequence[str]]) -> int:
    """How many words all begin with."""
    places = zip(*words, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda of: len(set(of)) == 1, places))


def summaries(results: Sequence[TaskResult]) -> list[TasksSummary]:
    """One of each group."""
    found = []
    for group in dict.fromkeys(one.group for one in results):
        own = [one for one in results if one.group == group]
        speed_ups = [one.speed_up for one in own if one.speed_up is not None]
        found.append(
            TasksSummary(
                group,
                own[0].baseline,
                tasks=len(own),
                better=sum(one.gain > 0 for one in own),
                mean_gain=float(np.mean([one.gain for one in own])),
                reached=len(speed_ups),
                mean_speed_up=float(np.mean(speed_ups)) if speed_ups else None,
                at_least=sum(s >= AT_LEAST for s in speed_ups) / len(own),
            )
        )
    return found


def task_figures(results: Sequence[TaskResult]) -> list[Figure | LeftOut]:
    """Figures 7 and 8."""
    if not results:
        why = "no tasks of a mixture were evaluated one by one in all runs (EVAL_EACH_TASK)"
        return [LeftOut(TITLE, why)]
    figures: list[Figure | LeftOut] = [_losses(results)]
    if any(one.speed_up is not None for one in results):
        return [*figures, _histogram(results)]
    return [
        *figures,
        LeftOut("Speed-ups by task (figure 8)", "no task came to its baseline's loss"),
    ]


def _losses(results: Sequence[TaskResult]) -> Figure:
    """Figure 7: the losses of both at each task, the most gained first."""
    place = {task: n for n, task in enumerate(dict.fromkeys(one.task for one in results))}
    names = {one.task: one.name for one in results}
    baseline = results[0].baseline
    first = [one for one in results if one.group == results[0].group]
    before = tuple(Point(place[o.task], o.baseline_loss, run=o.task) for o in first)
    series = [Series(baseline, "points", before, baseline)]
    for one in summaries(results):
        own = [o for o in results if o.group == one.group]
        stems = tuple(Point(place[o.task], o.loss, *_ends(o)) for o in own)
        points = tuple(Point(place[o.task], o.loss, run=o.task) for o in own)
        series.insert(0, Series("", "stems", stems, one.group))
        series.append(Series(one.group, "points", points, one.group))
    said = (
        f"{one.group} is better than {baseline} on {one.better} of {one.tasks} tasks, by "
        f"{one.mean_gain:.3f} nats per token on average"
        for one in summaries(results)
    )
    return Figure(
        "tasks-losses",
        "Loss of each task (figure 7)",
        "; ".join(said) + ". At the end of training; the task with the most gained is the first.",
        Axis("task", names=tuple(names[task] for task in place)),
        Axis(LOSSES[_LOSS]),
        series=tuple(series),
    )


def _ends(one: TaskResult) -> tuple[float, float]:
    return min(one.loss, one.baseline_loss), max(one.loss, one.baseline_loss)


def _histogram(results: Sequence[TaskResult]) -> Figure:
    """Figure 8: in how many tasks a group is how many times as fast."""
    values = [one.speed_up for one in results if one.speed_up is not None]
    groups = summaries(results)
    edges = _edges(values, max(one.reached for one in groups))
    width = float(edges[1] - edges[0]) / len(groups)
    series, said, most = [], [], 0
    for number, one in enumerate(groups):
        own = [o.speed_up for o in results if o.group == one.group and o.speed_up is not None]
        counts = np.histogram(own, edges)[0]
        centres = edges[:-1] + (number + 0.5) * width
        bars = tuple(Point(float(x), int(y)) for x, y in zip(centres, counts, strict=True) if y)
        series.append(Series(one.group, "bars", bars, one.group, width=width))
        said.append(_in_words(one))
        most = max(most, int(counts.max()))
    lines = [(f"at least {AT_LEAST:g}{TIMES}: {groups[0].at_least:.0%}", AT_LEAST)]
    if groups[0].mean_speed_up is not None:
        lines.append((f"mean {groups[0].mean_speed_up:.3g}{TIMES}", groups[0].mean_speed_up))
    if len(groups) == 1:
        series += [
            Series(text, "line", (Point(x, most * (1.13 - 0.08 * n)), Point(x, 0)))
            for n, (text, x) in enumerate(lines)
        ]
    return Figure(
        "tasks-speed-ups",
        "Speed-ups by task (figure 8)",
        "; ".join(said) + ". Steps to the loss at which the baseline ends on a task, its own over "
        "those of the other.",
        Axis(f"speed-up in steps ({TIMES})"),
        Axis("tasks"),
        series=tuple(series),
    )


def _edges(values: Sequence[float], tasks: int) -> np.ndarray:
    """Of as many bars as tasks can fill, at most _MOST_BARS."""
    bars = min(_MOST_BARS, math.ceil(2 * math.sqrt(tasks)))
    low, high = min(values), max(values)
    if high - low < 1e-9 * high:
        low, high = low * 0.95, high * 1.05
    return np.linspace(low, high, bars + 1)


def _in_words(one: TasksSummary) -> str:
    mean = (
        "" if one.mean_speed_up is None else f"{one.mean_speed_up:.3g} times as fast on average, "
    )
    never = one.tasks - one.reached
    left = f" ({never} never came to it, and are in no bar and no mean)" if never else ""
    return (
        f"{one.group} is {mean}and at least {AT_LEAST:g} times in {one.at_least:.0%} of "
        f"{one.tasks} tasks{left}"
    )
