"""A plan as a picture: memory against the chip's, least times, what moves along which axis."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from switchx import storage
from switchx.planning.plan import Plan

GB = 10**9
# Parameters, optimizer state, gradients, activations, the rest.
_MEMORY = ("#4c78a8", "#72b7b2", "#f58518", "#e45756", "#b0b0b0")
_TIME = {"compute": "#4c78a8", "memory": "#72b7b2"}
_NETWORKS = {"ici": "network in a slice", "dcn": "network of slices"}
_NETWORK, _LIMIT, _KINDS = "#e45756", "#1a1a1a", ("#4c78a8", "#f58518", "#54a24b", "#b279a2")


def draw(plan: Plan, path: Path) -> None:
    """Writes one PNG: a panel for memory, one for times, one for collectives, as far as known."""
    # The canvas is made here, not by pyplot: no display is looked for, no global state changed.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [_draw_memory]
    if plan.bound is not None:
        panels.append(_draw_times)
    if plan.collectives:
        panels.append(_draw_collectives)
    heights = [_height(plan, panel) for panel in panels]
    figure = Figure(figsize=(9, 0.9 + sum(heights)), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    mesh = " x ".join(f"{axis} {size}" for axis, size in plan.mesh.items() if size > 1)
    figure.suptitle(f"{plan.topology}: {mesh or 'one device'}", fontsize=13)
    all_axes = figure.subplots(len(panels), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axes, panel in zip(all_axes, panels, strict=True):
        panel(axes, plan)
        axes.spines[["top", "right"]].set_visible(False)
    with storage.whole_file(path) as part:
        figure.savefig(part, dpi=130, format="png")


def _height(plan: Plan, panel: Any) -> float:
    """Inches, by the number of bars."""
    bars = {
        _draw_memory: 2,
        _draw_times: 3 + (plan.slices > 1),
        _draw_collectives: len({one.axes for one in plan.collectives}),
    }
    return 0.9 + 0.36 * bars[panel]


def _draw_memory(axes: Any, plan: Plan) -> None:
    held = plan.memory
    parts = {
        "parameters": held.parameters,
        "optimizer state": held.optimizer,
        "gradients": held.gradients,
        "activations, temporaries": held.activations or 0,
        "batch, program": held.batch + held.program,
    }
    left = 0.0
    for (name, size), color in zip(parts.items(), _MEMORY, strict=True):
        label = f"{name} {size / GB:.2f}"
        axes.barh(0, size / GB, left=left, color=color, label=label, height=0.6)
        left += size / GB
    if held.limit is not None:
        axes.axvline(held.limit / GB, color=_LIMIT, linestyle="--", linewidth=1.5)
    most = max(held.total, held.limit or 0) / GB
    axes.set(xlim=(0, 1.06 * most), ylim=(-0.45, 1.1), yticks=[], xlabel="GB on one chip")
    axes.set_title(_memory_title(plan), loc="left", fontsize=11)
    axes.legend(frameon=False, ncols=3, loc="upper left", fontsize=8)


def _memory_title(plan: Plan) -> str:
    held = plan.memory
    if held.limit is None:
        return f"memory: {held.total / GB:.2f} GB"
    of = f"memory: {held.total / GB:.2f} of {held.limit / GB:.1f} GB"
    if held.over:
        return f"{of}, {held.over / GB:.2f} GB too much"
    return of if plan.fits else f"{of}, activations not known"


def _draw_times(axes: Any, plan: Plan) -> None:
    bound = plan.bound
    assert bound is not None
    times = {"compute": bound.compute, "memory": bound.memory}
    times |= {_NETWORKS[name]: seconds for name, seconds in bound.network.items()}
    if plan.slices == 1:
        del times[_NETWORKS["dcn"]]
    names = list(times)[::-1]
    colors = [_TIME.get(name, _NETWORK) for name in names]
    bars = axes.barh(names, [1000 * times[name] for name in names], color=colors, height=0.6)
    axes.bar_label(bars, fmt="{:,.1f}", padding=3, fontsize=8)
    axes.axvline(1000 * bound.seconds, color=_LIMIT, linestyle="--", linewidth=1.5)
    axes.set_xlabel("ms")
    axes.margins(x=0.1)
    title = f"a step takes at least {1000 * bound.seconds:,.1f} ms ({bound.limited_by})"
    axes.set_title(title, loc="left", fontsize=11)


def _draw_collectives(axes: Any, plan: Plan) -> None:
    sent: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    for one in plan.collectives:
        sent[one.kind][" x ".join(one.axes)] += one.sent / GB
    names = list(dict.fromkeys(name for by_axis in sent.values() for name in by_axis))[::-1]
    left = dict.fromkeys(names, 0.0)
    for i, (kind, by_axis) in enumerate(sent.items()):
        sizes = [by_axis[name] for name in names]
        color = _KINDS[i % len(_KINDS)]
        axes.barh(names, sizes, left=list(left.values()), color=color, label=kind, height=0.6)
        left = {name: left[name] + by_axis[name] for name in names}
    axes.set_xlim(0, 1.25 * max(left.values()) or 1)  # room for the legend
    axes.set_xlabel("GB that a chip sends in a step")
    axes.set_title("collectives by mesh axis", loc="left", fontsize=11)
    axes.legend(frameon=False, fontsize=8, loc="center right")
