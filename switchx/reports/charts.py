"""The figures of a report as pictures, from the same document as its page."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from switchx.reports.pictures import new_figure, plain_axes, save

_NAMES = {
    "step": "step",
    "tokens": "tokens",
    "flops": "training FLOPs",
    "seconds": "training time (s)",
}
_FACTORS = {"tokens": "tokens_per_step", "flops": "flops_per_step"}
_MOST_LINES = 6  # that are named where they begin
_INCHES_A_NAME = 0.13  # along an axis that names what stands on it
MOST_NAMES = 12  # in a legend that leaves room for the figure


def draw(document: Mapping[str, Any], directory: Path) -> Iterator[str]:
    """Draws every figure; yields the names of the files."""
    of_laws = [figure for law in document["laws"] for figure in law["figures"]]
    for figure in [*document["figures"], *document["time"]["figures"], *of_laws]:
        name = f"{figure['id']}.png"
        save(chart(document, figure), directory / name)
        yield name


def chart(document: Mapping[str, Any], figure: Mapping[str, Any]) -> Any:
    """A matplotlib figure of one figure of a document."""
    names = figure["x"]["names"]
    drawn = new_figure(max(7.2, _INCHES_A_NAME * len(names)), 4.6)
    axes = drawn.add_subplot()
    groups = {group["name"]: group for group in document["groups"]}
    if figure["curve"] is None:
        _draw_series(axes, figure, groups)
    else:
        _draw_curves(axes, document, figure, groups)
    for level in figure["levels"]:
        colour = groups[level["group"]]["light"]
        axes.axhline(level["y"], color=colour, linestyle=":", linewidth=1.2)
    if figure["x"]["log"]:
        axes.set_xscale("log")
    if figure["y"]["log"]:
        axes.set_yscale("log")
    axes.set_xlabel(_escaped(_NAMES.get(figure["x"]["of"], figure["x"]["label"])))
    axes.set_ylabel(figure["y"]["label"])
    if names:
        axes.set_xticks(range(len(names)), map(_escaped, names), rotation=90, fontsize=7)
        axes.margins(x=1.5 / (len(names) + 1))
    axes.set_title(_escaped(figure["title"]), loc="left", fontsize=12)
    plain_axes(axes)
    shown = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    if 1 < len(shown) <= MOST_NAMES:
        # In the order of the groups, not of the runs; what is of no group comes last.
        order = {_escaped(name): at for at, name in enumerate(groups)}
        labels = sorted(shown, key=lambda label: order.get(label, len(order)))
        handles = [shown[label] for label in labels]
        axes.legend(handles, labels, frameon=False, fontsize=9)
    return drawn


def _draw_curves(axes: Any, document: Mapping, figure: Mapping, groups: Mapping) -> None:
    of = figure["x"]["of"]
    labelled = set()
    for run in document["runs"]:
        name = run["group"]
        if name not in figure["groups"] or figure["curve"] not in run["curves"]:
            continue
        curve, by = run["curves"][figure["curve"]], _factor(document, run, of)
        axes.plot(
            [step * by for step in curve["step"]],
            curve["value"],
            color=groups[name]["light"],
            linestyle=_dash(groups[name]["dash"]),
            linewidth=1.5,
            label=None if name in labelled else _escaped(name),
            marker="o" if len(curve["step"]) == 1 else None,
        )
        labelled.add(name)
    for mark in figure["marks"]:
        run = next(run for run in document["runs"] if run["group"] == mark["group"])
        x, colour = mark["step"] * _factor(document, run, of), groups[mark["group"]]["light"]
        axes.plot([x], [mark["y"]], "o", markerfacecolor="white", color=colour, zorder=4)
        # Upright: many groups may come to the loss within few steps of each other.
        offset = {"xytext": (0, -7), "textcoords": "offset points", "ha": "center", "va": "top"}
        axes.annotate(mark["text"], (x, mark["y"]), rotation=90, fontsize=8.5, **offset)


def _draw_series(axes: Any, figure: Mapping, groups: Mapping) -> None:
    named = [s["name"] for s in figure["series"] if s["style"] == "line" and s["name"]]
    for series in figure["series"]:
        points = series["points"]
        xs, ys = [p["x"] for p in points], [p["y"] for p in points]
        if series["style"] == "band":
            lows, highs = [p["low"] for p in points], [p["high"] for p in points]
            axes.fill_between(xs, lows, highs, color="#8c8c8c", alpha=0.2, linewidth=0)
            continue
        if series["style"] == "line":
            axes.plot(xs, ys, color="#8c8c8c", linewidth=1, linestyle="--", zorder=1)
            if 1 < len(named) <= _MOST_LINES:
                offset = {"xytext": (7, 3), "textcoords": "offset points", "fontsize": 8.5}
                axes.annotate(_escaped(series["name"]), (xs[0], ys[0]), **offset)
            continue
        colour = groups[series["group"]]["light"] if series["group"] else "#8c8c8c"
        if series["style"] == "stems":
            lows, highs = [p["low"] for p in points], [p["high"] for p in points]
            axes.vlines(xs, lows, highs, color="#8c8c8c", linewidth=1, zorder=1)
            continue
        if series["style"] == "bars":
            style = {"color": colour, "edgecolor": "white", "linewidth": 0.6}
            axes.bar(xs, ys, series["width"], label=_escaped(series["name"]), **style)
            axes.yaxis.get_major_locator().set_params(integer=True)  # they count
            continue
        if series["style"] == "dots":
            axes.plot(xs, ys, "o", color=colour, markersize=3, alpha=0.6)
            continue
        if series["style"] == "points":
            axes.plot(xs, ys, "o", color=colour, markersize=5, label=_escaped(series["name"]))
            continue
        bars = [[p["y"] - p["low"], p["high"] - p["y"]] for p in points if p["low"] is not None]
        errors = list(zip(*bars, strict=True)) if len(bars) == len(points) else None
        style = {"fmt": "o", "color": colour, "capsize": 3, "zorder": 3}
        axes.errorbar(xs, ys, errors, label=_escaped(series["name"]), **style)


def _factor(document: Mapping[str, Any], run: Mapping[str, Any], of: str) -> float:
    if of == "seconds":
        return float(document["time"]["seconds_per_step"][run["name"]])
    return float(run[_FACTORS[of]]) if of in _FACTORS else 1.0


def _dash(dash: str) -> Any:
    return (0, tuple(float(part) / 1.5 for part in dash.split())) if dash else "-"


def _escaped(text: str) -> str:
    """A $ begins mathematics to matplotlib, and _ hides a name from the legend."""
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
