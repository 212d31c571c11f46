"""A plan as a picture: memory against the chip's, least times, what moves along which axis."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from switchx import storage
from switchx.planning.plan import Plan
from switchx.planning.report import NETWORKS

GB = 10**9
_COLORS = ("#4c78a8", "#72b7b2", "#f58518", "#e45756", "#b0b0b0")
_LIMIT = dict(color="#1a1a1a", linestyle="--", linewidth=1.5)


def draw(plan: Plan, path: Path) -> None:
    """Writes one PNG: a panel for memory, one for times, one for collectives, as far as known."""
    # The canvas is made here, not by pyplot: no display is looked for, no global state changed.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [(_draw_memory, 2)]  # each with its number of bars
    if plan.bound is not None:
        bars = 3 + (plan.slices > 1) + (plan.likely is not None)
        panels.append((_draw_times, bars))
    if plan.collectives:
        panels.append((_draw_collectives, len({one.axes for one in plan.collectives})))
    heights = [0.9 + 0.36 * bars for _, bars in panels]
    figure = Figure(figsize=(9, 0.9 + sum(heights)), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    mesh = " x ".join(f"{axis} {size}" for axis, size in plan.mesh.items() if size > 1)
    figure.suptitle(f"{plan.topology}: {mesh or 'one device'}", fontsize=13)
    all_axes = figure.subplots(len(panels), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axes, (panel, _) in zip(all_axes, panels, strict=True):
        axes.set_title(panel(axes, plan), loc="left", fontsize=11)
        axes.spines[["top", "right"]].set_visible(False)
    with storage.whole_file(path) as part:
        figure.savefig(part, dpi=130, format="png")


def _draw_memory(axes: Any, plan: Plan) -> str:
    held = plan.memory
    parts = {
        "parameters": held.parameters,
        "optimizer state": held.optimizer,
        "gradients": held.gradients,
        "activations, temporaries": held.activations or 0,
        "batch, program": held.batch + held.program,
    }
    left = 0.0
    for (name, size), color in zip(parts.items(), _COLORS, strict=True):
        label = f"{name} {size / GB:.2f}"
        axes.barh(0, size / GB, left=left, color=color, label=label, height=0.6)
        left += size / GB
    title, most = f"memory: {held.total / GB:.2f} GB", held.total
    if held.limit is not None:
        axes.axvline(held.limit / GB, **_LIMIT)
        title, most = f"{title} of {held.limit / GB:.1f}", max(held.total, held.limit)
        if held.over:
            title += f", {held.over / GB:.2f} too much"
        elif not plan.fits:
            title += ", activations not known"
    axes.set(xlim=(0, 1.06 * most / GB), ylim=(-0.45, 1.1), yticks=[], xlabel="GB on one chip")
    axes.legend(frameon=False, ncols=3, loc="upper left", fontsize=8)
    return title


def _draw_times(axes: Any, plan: Plan) -> str:
    bound = plan.bound
    assert bound is not None
    times = {"compute": bound.compute, "memory": bound.memory}
    times |= {NETWORKS[name]: seconds for name, seconds in bound.network.items()}
    if plan.slices == 1:
        del times[NETWORKS["dcn"]]
    ms = [1000 * seconds for seconds in times.values()]
    bars = axes.barh(list(times), ms, color=_COLORS[: len(times)], height=0.6)
    axes.bar_label(bars, fmt="{:,.1f}", padding=3, fontsize=8)
    if plan.likely:
        low, middle, high = (
            1000 * each for each in (plan.likely.low, plan.likely.seconds, plan.likely.high)
        )
        axes.barh(["likely"], [middle], color="lightgray", height=0.6)
        axes.errorbar([middle], ["likely"], xerr=[[middle - low], [high - middle]], color="black")
    axes.invert_yaxis()  # the first on top
    axes.axvline(1000 * bound.seconds, **_LIMIT)
    axes.set_xlabel("ms")
    axes.margins(x=0.1)
    title = f"a step takes at least {1000 * bound.seconds:,.1f} ms ({bound.limited_by})"
    return title + (f", likely {1000 * plan.likely.seconds:,.1f}" if plan.likely else "")


def _draw_collectives(axes: Any, plan: Plan) -> str:
    sent: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    for one in plan.collectives:
        sent[one.kind][" x ".join(one.axes)] += one.sent / GB
    left = dict.fromkeys([" x ".join(one.axes) for one in plan.collectives], 0.0)
    for i, (kind, by_axis) in enumerate(sent.items()):
        sizes = [by_axis[name] for name in left]
        color = _COLORS[i % len(_COLORS)]
        axes.barh(list(left), sizes, left=list(left.values()), color=color, label=kind, height=0.6)
        left = {name: start + by_axis[name] for name, start in left.items()}
    axes.invert_yaxis()
    axes.set_xlim(0, 1.25 * max(left.values()) or 1)  # room for the legend
    axes.set_xlabel("GB that a chip sends in a step")
    axes.legend(frameon=False, fontsize=8, loc="center right")
    return "collectives by mesh axis"
