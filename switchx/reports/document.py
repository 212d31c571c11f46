"""A whole report as plain numbers: what report.json holds, and all that a page or a picture shows.

The same runs give the same document, whatever happened to them, but for its key "time": there is
everything that rests on a clock.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import switchx
from switchx.reports import comparison, fits
from switchx.reports.colours import colours, dashes
from switchx.reports.each_task import by_task, summaries, task_figures
from switchx.reports.figures import Figure, figures, time_figures
from switchx.reports.fits import laws_of
from switchx.reports.groups import Estimate, Group, grouped
from switchx.reports.pictures import thin
from switchx.reports.runs import Curve, LeftOut, RunRecord
from switchx.reports.speedups import SpeedUp, over_dense, over_first, over_larger

FORMAT = 1
MOST_POINTS = 200  # of a curve: more are narrower than a pixel
_DIGITS = 6
_MEASURED = (
    "loss",
    "validation_loss",
    "train_loss",
)  # single measurements; others are means of rows


def of_sweep(
    name: str,
    runs: Sequence[RunRecord],
    left_out: Sequence[LeftOut],
    varied: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Everything a report of a sweep says.

    Args:
      varied: by a run's name, the settings that set it apart.
    """
    groups = grouped(runs, varied)
    speed_ups, no_speed_up = over_dense(groups)
    made = _document(groups, speed_ups, no_speed_up, by_experts=True)
    made["runs"] = [_run(run, groups, varied[run.name]) for run in runs]
    made["left_out"] = [{**one._asdict(), "is_run": True} for one in left_out] + made["left_out"]
    return rounded({**made, "kind": "sweep", "title": f"Sweep {name}"})


def of_comparison(runs: Sequence[RunRecord]) -> dict[str, Any]:
    """Everything a comparison says: of each run with the first one."""
    groups = comparison.compared(runs)
    made = _document(groups, over_first(groups), [], by_experts=False)
    made["figures"] = [f for f in made["figures"] if f["id"] != "parameters" or len(groups) > 2]
    made["runs"] = [_run(run, groups, {}) for run in runs]
    made["differences"] = [dataclasses.asdict(one) for one in comparison.settings_that_differ(runs)]
    made["equal_steps"] = comparison.losses_at_equal_steps(groups)
    _add_tasks(made, groups)
    names = [run.name for run in runs]
    title = (
        " and ".join(names) if len(names) == 2 else f"{names[0]} and {len(names) - 1} other runs"
    )
    return rounded({**made, "kind": "comparison", "title": title})


def _document(
    groups: Sequence[Group],
    speed_ups: Sequence[SpeedUp],
    no_speed_up: Sequence[LeftOut],
    by_experts: bool,
) -> dict[str, Any]:
    """What all reports have."""
    drawn, not_drawn = figures(groups, speed_ups)
    by_time, no_time = time_figures(groups, speed_ups)
    larger = over_larger(groups)
    fitted, not_fitted = laws_of(groups)
    return {
        "format": FORMAT,
        "kind": "",
        "switchx": switchx.__version__,
        "title": "",
        "loss": groups[0].loss,
        "groups": _groups(groups, by_experts),
        "runs": [],
        "figures": [_figure(figure) for figure in drawn],
        "speed_ups": [_without_time(s) for s in speed_ups],
        "over_larger": [_without_time(s) for s in larger],
        "laws": [fits.plain(law) for law in fitted],
        "differences": [],
        "equal_steps": [],
        "tasks": [],
        "tasks_together": [],
        "left_out": [
            {**one._asdict(), "is_run": False} for one in [*no_speed_up, *not_drawn, *not_fitted]
        ],
        "time": {
            "seconds_per_step": {
                run.name: run.seconds_per_step for group in groups for run in group.runs
            },
            "figures": [_figure(figure) for figure in by_time],
            "speed_ups": [_time(s) for s in [*speed_ups, *larger]],
            "left_out": [{**one._asdict(), "is_run": False} for one in no_time],
        },
    }


def _add_tasks(made: dict[str, Any], groups: Sequence[Group]) -> None:
    """What is said of each task of a mixture."""
    results = by_task(groups) if len(groups) > 1 else []
    for one in task_figures(results):
        if isinstance(one, LeftOut):
            made["left_out"].append({**one._asdict(), "is_run": False})
        else:
            made["figures"].append(_figure(one))
    made["tasks"] = [dataclasses.asdict(one) for one in results]
    made["tasks_together"] = [dataclasses.asdict(one) for one in summaries(results)]


def _groups(groups: Sequence[Group], by_experts: bool) -> list[dict[str, Any]]:
    return [
        {
            "name": group.name,
            "experts": group.num_experts,
            "settings": dict(group.family),
            "runs": [run.name for run in group.runs],
            **dataclasses.asdict(group.size),
            "final_loss": dataclasses.asdict(Estimate.of(group.final_losses())),
            "light": light,
            "dark": dark,
            "dash": dash,
        }
        for group, (light, dark), dash in zip(
            groups, colours(groups, by_experts), dashes(groups, by_experts), strict=True
        )
    ]


def _run(run: RunRecord, groups: Sequence[Group], varied: Mapping[str, Any]) -> dict[str, Any]:
    """One run's figures and its curves, the one that all runs have as `loss`."""
    group = next(group for group in groups if run in group.runs)
    loss = group.loss
    curves = {"loss": run.curves[loss], **run.curves}
    del curves[loss]
    values = run.curves[loss].values
    return {
        "name": run.name,
        "group": group.name,
        "varied": {name: _plain(value) for name, value in varied.items()},
        "experts": run.num_experts,
        "seed": run.seed,
        "steps": run.steps_done,
        "train_steps": run.train_steps,
        "start": run.start.get("from"),
        **dataclasses.asdict(run.size),
        "final_loss": float(values[-1]),
        "best_loss": float(values.min()),
        "curves": {name: _curve(name in _MEASURED, curve) for name, curve in curves.items()},
    }


def _curve(measured: bool, curve: Curve) -> dict[str, list[float]]:
    """At most MOST_POINTS of it: of single measurements some, the last too, of others means."""
    if len(curve.steps) > MOST_POINTS:
        if measured:
            at = np.unique(np.linspace(0, len(curve.steps) - 1, MOST_POINTS).round().astype(int))
            curve = Curve(curve.steps[at], curve.values[at])
        else:
            curve = Curve(*(thin(part, MOST_POINTS) for part in curve))
    return {"step": curve.steps.tolist(), "value": curve.values.tolist()}


def _figure(figure: Figure) -> dict[str, Any]:
    return dataclasses.asdict(figure)


def _without_time(speed_up: SpeedUp) -> dict[str, Any]:
    found = dataclasses.asdict(speed_up)
    del found["time"]
    return found


def _time(speed_up: SpeedUp) -> dict[str, Any]:
    estimate = speed_up.time and dataclasses.asdict(speed_up.time)
    return {"group": speed_up.group, "baseline": speed_up.baseline, "time": estimate}


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | None) else repr(value)


def rounded(value: Any) -> Any:
    """The same with floats of six digits, whole ones as such, tuples as lists."""
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        if value.is_integer() and abs(value) < 1e15:
            return int(value)
        return float(f"{value:.{_DIGITS}g}")
    return value
