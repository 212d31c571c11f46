"""A plan as a person reads it, and as JSON."""

import dataclasses
import itertools
import json
from typing import Any

from switchx.planning.fit import Fit, Point
from switchx.planning.plan import Plan
from switchx.terminal import counted

GB = 10**9
NETWORKS = {"ici": "network within a slice", "dcn": "network between slices"}


def to_json(plan: Plan) -> dict[str, Any]:
    """The plan as plain values; bytes and seconds as they are."""
    values = dataclasses.asdict(plan)
    values["memory"] |= {"total": plan.memory.total, "over": plan.memory.over}
    return json.loads(json.dumps(values))


def text(plan: Plan) -> str:
    """The report, a few tables of one screen together."""
    parts = [
        _head(plan),
        _memory(plan),
        _collectives(plan),
        _flops(plan),
        _bound(plan),
        _compilation(plan),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def fit_to_json(fit: Fit) -> dict[str, Any]:
    """The search as plain values."""
    points = [dataclasses.asdict(point) for point in fit.points]
    return {"best": None if fit.best is None else to_json(fit.best), "points": points}


def fit_text(fit: Fit) -> str:
    """Every point that was tried, and the best one's plan."""
    lines = [
        f"{'tried':<16}{'data':>6}{'expert':>8}{'model':>7}{'sharded':>9}{'remat':>7}{'parts':>7}"
        f"{'ms':>10}  outcome"
    ]
    lines += [_point(point) for point in fit.points]
    if fit.best is None:
        return "\n".join([*lines, "", "nothing fits"])
    chosen = next(p for p in fit.points if p.fits and p.seconds == fit.best.seconds)
    named = " ".join(f"--gin.{name}={value!r}" for name, value in chosen.settings.items())
    return "\n".join([*lines, "", f"best: {fit.best.topology} {named}", "", text(fit.best)])


def _point(point: Point) -> str:
    given = point.settings
    if not given:
        return f"{point.topology:<60}{'':>10}  {point.outcome}"
    seconds = "" if point.seconds is None else f"{1000 * point.seconds:,.1f}"
    return (
        f"{point.topology:<16}{given['MESH_DATA']:>6}{given['MESH_EXPERT']:>8}"
        f"{given['MESH_MODEL']:>7}{'yes' if given['FULLY_SHARDED'] else 'no':>9}"
        f"{given['REMAT']:>7}{given['MICROBATCHES']:>7}{seconds:>10}  {point.outcome}"
    )


def verdict(plan: Plan) -> str:
    """Whether it fits, in a few words with figures."""
    held = plan.memory
    if held.limit is None:
        return "no limit is known for CPU devices"
    if held.over:
        return f"does not fit: {_gb(held.over)} GB over"
    spare = f"{_gb(held.limit - held.total)} GB to spare"
    return f"fits, {spare}" if plan.fits else f"{spare} for activations: not compiled, not known"


def refusal(plan: Plan) -> str:
    """One line for a plan that does not fit: by how much, and what to change."""
    held = plan.memory
    return (
        f"{plan.topology} does not fit this run: a chip needs {_gb(held.total)} GB and has "
        f"{_gb(held.limit or 0)}, {_gb(held.over)} GB too little; try {', or '.join(plan.advice)}."
    )


def _head(plan: Plan) -> list[str]:
    counts = [
        counted(plan.chips, "chip" if plan.chip else "CPU device"),
        counted(plan.hosts, "host"),
    ]
    if plan.slices > 1:
        counts.insert(0, counted(plan.slices, "slice"))
    mesh = ", ".join(f"MESH_{axis.upper()}={size}" for axis, size in plan.mesh.items())
    lines = [f"{plan.topology}: {', '.join(counts)}", mesh]
    named = [f"{name}={value!r}" for name, value in plan.settings.items()]
    lines += [", ".join(named[:4]), ", ".join(named[4:])]
    return [*lines, *plan.notes]


def _memory(plan: Plan) -> list[str]:
    held = plan.memory
    rows = [
        ("parameters", held.parameters),
        ("optimizer state", held.optimizer),
        *([("teacher", held.constants)] if held.constants else []),
        ("gradients", held.gradients),
        ("activations and temporaries", held.activations),
        ("batch, rounding of arguments", held.batch),
        ("program", held.program),
    ]
    lines = [f"{'memory of one chip':<32}{'GB':>10}"]
    lines += [f"  {name:<30}{_gb(value):>10}" for name, value in rows]
    total = f"  {'together':<30}{_gb(held.total):>10}"
    if held.limit is not None:
        total += f"  of {_gb(held.limit)}: {verdict(plan)}"
    lines.append(total)
    return lines + [f"  to change: {line}" for line in plan.advice]


def _collectives(plan: Plan) -> list[str]:
    if plan.compilation is None or plan.fits is False:
        return []
    if not plan.collectives:
        return ["no collectives"]
    head = f"{'collectives of one chip, a step':<44}{'count':>8}{'GB':>10}{'GB sent':>10}"
    seconds = plan.bound.collectives if plan.bound else ()
    lines = [head + f"{'least ms':>10}" if seconds else head]
    for one, least in itertools.zip_longest(plan.collectives, seconds):
        name = f"{one.kind} of {one.dtype} over {' x '.join(one.axes)}"
        row = f"  {name:<42}{one.count:>8,}{_gb(one.bytes):>10}{_gb(one.sent):>10}"
        lines.append(row if least is None else row + f"{_ms(least):>10}")
    return lines


def _flops(plan: Plan) -> list[str]:
    flops = plan.flops
    rows = [("of the model", flops.model), ("executed", flops.executed)]
    rows += [(f"  {name}", count) for name, count in flops.waste.items() if count]
    lines = [f"{'FLOPs of a step, all chips':<32}{'':>10}{'of model':>10}"]
    for name, count in rows:
        lines.append(f"  {name:<30}{count:>10.3g}{count / flops.model:>10.1%}")
    return lines


def _bound(plan: Plan) -> list[str]:
    bound = plan.bound
    if bound is None:
        return []
    rows = [("compute", bound.compute), ("memory", bound.memory)]
    rows += [(NETWORKS[name], seconds) for name, seconds in bound.network.items()]
    if plan.slices == 1:
        rows.pop()  # nothing to say of a network between slices
    lines = [f"{'least time of a step':<32}{'ms':>10}"]
    lines += [f"  {name:<30}{_ms(seconds):>10}" for name, seconds in rows]
    limit = NETWORKS.get(bound.limited_by, bound.limited_by)
    lines.append(
        f"  {'bound':<30}{_ms(bound.seconds):>10}  limited by {limit}: at most "
        f"{bound.tokens_per_second:,.0f} tokens/s, {bound.utilisation:.1%} model FLOP utilisation"
    )
    steps = plan.settings["TRAIN_STEPS"]
    lines.append(f"  {f'days for {steps:,} steps':<30}{bound.days:>10,.2f}  or more")
    return lines + _likely(plan)


def _likely(plan: Plan) -> list[str]:
    likely, bound = plan.likely, plan.bound
    if likely is None or bound is None:
        return []
    slower, steps = likely.seconds / bound.seconds, plan.settings["TRAIN_STEPS"]
    return [
        "",
        f"{'likely time of a step':<32}{_ms(likely.seconds):>10}  from {_ms(likely.low)} to "
        f"{_ms(likely.high)} ms: {bound.tokens_per_second / slower:,.0f} tokens/s, "
        f"{bound.utilisation / slower:.1%} model FLOP utilisation",
        f"  {'computation':<30}{_ms(likely.computation):>10}",
        f"  {'networks':<30}{_ms(likely.network):>10}",
        f"  {f'days for {steps:,} steps':<30}{bound.days * slower:>10,.2f}",
    ]


def _compilation(plan: Plan) -> list[str]:
    done = plan.compilation
    if done is None:
        return []
    return [
        f"compiled in {done.seconds:.0f} s, with {_gb(done.host_bytes)} GB of this machine's memory"
    ]


def _gb(count: int | None) -> str:
    if count is None:
        return "?"
    value = count / GB
    return f"{value:,.2f}" if value >= 0.01 or not count else f"{value:.2g}"


def _ms(seconds: float) -> str:
    ms = 1000 * seconds
    return f"{ms:,.1f}" if ms >= 1 or not ms else f"{ms:.2g}"
