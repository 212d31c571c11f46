"""The laws of scale through a user's own runs: which can be fitted, and how each is drawn."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from switchx.errors import UserError
from switchx.reports import laws
from switchx.reports.figures import LOSSES, Axis, Figure, Point, Series
from switchx.reports.groups import Group, experts_in_words
from switchx.reports.runs import LeftOut, RunRecord

_ALONG = 40  # points of a law's line
_ROUTED = "Law of routed models"
_AS_LONG = 1.02  # times the tokens: runs of equal length to a law without tokens


@dataclasses.dataclass(frozen=True)
class Law:
    """A law that was fitted.

    Attributes:
      id: its name in the page.
      title: which law, through which runs.
      fit: coefficients, intervals and what its reader needs to judge it.
      runs: their names, in the order of the fit's points.
      figures: the law among its points, and what it leaves.
    """

    id: str
    title: str
    fit: laws.Fit
    runs: tuple[str, ...]
    figures: tuple[Figure, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class _Runs:
    """Runs that laws are fitted to, and what they are fitted in; P of each.

    Attributes:
      groups: the name of each one's group.
      loss: the name of the curve at whose end `loss_P` is.
      N_P: parameters that one token uses, embeddings counted and routers not.
      D_P, flops_P: of all steps; tokens of inputs and targets.
    """

    runs: tuple[RunRecord, ...]
    groups: tuple[str, ...]
    loss: str
    loss_P: np.ndarray
    N_P: np.ndarray
    D_P: np.ndarray
    flops_P: np.ndarray
    experts_P: np.ndarray

    @classmethod
    def of(cls, groups: Sequence[Group]) -> "_Runs":
        runs = [run for group in groups for run in group.runs]
        columns = [
            (
                float(run.curves[groups[0].loss].values[-1]),
                run.size.parameters_of_layers,
                run.size.tokens_per_step * run.steps_done,
                run.size.flops_per_step * run.steps_done,
                run.num_experts,
            )
            for run in runs
        ]
        names = tuple(group.name for group in groups for _ in group.runs)
        return cls(tuple(runs), names, groups[0].loss, *np.array(columns, float).T)

    def where(self, kept_P: np.ndarray) -> "_Runs":
        """Those for which it is true."""
        at = np.flatnonzero(kept_P)
        return _Runs(
            tuple(self.runs[n] for n in at),
            tuple(self.groups[n] for n in at),
            self.loss,
            *(c[at] for c in (self.loss_P, self.N_P, self.D_P, self.flops_P, self.experts_P)),
        )


def laws_of(groups: Sequence[Group]) -> tuple[list[Law], list[LeftOut]]:
    """Every law that the runs have enough different points for; of the others, what is missing."""
    runs, left_out = _best_of_each_size(groups)
    found: list[Law] = []
    for make in (_routed, _power_laws, _minima):
        try:
            found += make(runs)
        except UserError as error:
            left_out.append(LeftOut(_TITLES[make.__name__], str(error).rstrip(".")))
    return found, left_out


_TITLES = {
    "_routed": _ROUTED,
    "_power_laws": "Power laws in parameters and tokens",
    "_minima": "Minima at equal compute",
}


def _best_of_each_size(groups: Sequence[Group]) -> tuple[_Runs, list[LeftOut]]:
    """A law is of well-trained models: of equal sizes and lengths those of the best settings."""
    best: dict[tuple, Group] = {}
    left_out = []
    for group in sorted(groups, key=lambda group: float(np.mean(group.final_losses()))):
        run = group.runs[0]
        place = (run.num_experts, run.size.parameters, run.size.tokens_per_step * run.steps_done)
        if place in best:
            why = f"its size and tokens are those of {best[place].name}, whose loss is lower"
            left_out.append(LeftOut(f"{group.name} in laws", why))
        best.setdefault(place, group)
    kept = [group for group in groups if group in best.values()]
    return _Runs.of(kept), left_out


def _routed(runs: _Runs) -> list[Law]:
    """The law of routed models, for each length of training: it has no tokens."""
    found: list[Law] = []
    reasons = ["no two runs of equal length differ in their experts"]
    lengths = _lengths(runs.D_P)
    for tokens, of_length_P in lengths:
        of_length = runs.where(of_length_P)
        if len(np.unique(of_length.experts_P)) < 2:
            continue
        title = _ROUTED if len(lengths) == 1 else f"{_ROUTED}, {tokens:.4g} tokens"
        try:
            found.append(_routed_law(f"routed-{len(found)}", title, of_length))
        except UserError as error:
            reasons.append(str(error).rstrip("."))
    if not found:
        raise UserError(reasons[-1])
    return found


def _lengths(D_P: np.ndarray) -> list[tuple[float, np.ndarray]]:
    """The shortest of runs that are as good as equally long, and which they are.

    Where routers count in a budget, more experts have a few steps fewer.
    """
    shortest: list[float] = []
    for tokens in np.unique(D_P):
        if not shortest or tokens > _AS_LONG * shortest[-1]:
            shortest.append(float(tokens))
    nearest_P = np.searchsorted(shortest, D_P, side="right") - 1
    return [(tokens, nearest_P == n) for n, tokens in enumerate(shortest)]


def _routed_law(name: str, title: str, runs: _Runs) -> Law:
    sizes = np.unique(runs.N_P)
    if len(sizes) > 1:
        fit = laws.routed(runs.N_P, runs.experts_P, runs.loss_P)
        lines = [_Line(f"N = {_short(n)}", {"N": n}) for n in sizes]
    else:
        fit = laws.routed_at_one_size(runs.experts_P, runs.loss_P)
        lines = [_Line(f"N = {_short(sizes[0])}", {})]
    return _drawn(name, title, fit, runs, "experts", lines)


def _power_laws(runs: _Runs) -> list[Law]:
    """For each number of experts: jointly in N and D where both vary, else in the one that does."""
    found = []
    reasons = []
    for experts in np.unique(runs.experts_P):
        alike = runs.where(runs.experts_P == experts)
        try:
            found.append(_power_law(alike, int(experts)))
        except UserError as error:
            reasons.append(f"{experts_in_words(int(experts))}: {str(error).rstrip('.')}")
    if not found:
        raise UserError(reasons[0])
    return found


def _power_law(runs: _Runs, experts: int) -> Law:
    sizes, tokens = np.unique(runs.N_P), np.unique(runs.D_P)
    words = experts_in_words(experts)
    name = f"power-{experts}"
    if len(sizes) > 1 and len(tokens) > 1:
        fit = laws.chinchilla(runs.N_P, runs.D_P, runs.loss_P)
        lines = [_Line(f"D = {_short(d)}", {"D": d}) for d in tokens[:: -(-len(tokens) // 6)]]
        return _drawn(name, f"Chinchilla's law in N and D, {words}", fit, runs, "N", lines)
    if len(sizes) > 1:
        fit = laws.power_law(runs.N_P, runs.loss_P, "N")
        return _drawn(name, f"Power law in N, {words}", fit, runs, "N", [_Line("", {})])
    fit = laws.power_law(runs.D_P, runs.loss_P, "D")
    return _drawn(name, f"Power law in D, {words}", fit, runs, "D", [_Line("", {})])


def _minima(runs: _Runs) -> list[Law]:
    """The lowest loss of each budget, of the number of experts that has the most runs."""
    counts = {e: int((runs.experts_P == e).sum()) for e in np.unique(runs.experts_P)}
    experts = max(counts, key=lambda e: (counts[e], -e))
    alike = runs.where(runs.experts_P == experts)
    found = laws.isoflops(alike.flops_P, alike.N_P, alike.loss_P)
    words = experts_in_words(int(experts))
    title = f"Minima at equal compute, {words}"
    series = list(_dots(alike, alike.N_P))
    for minimum in found.minima:
        at = np.geomspace(*_ends(alike.N_P[list(minimum.points)]), _ALONG)
        losses = minimum.loss * np.exp(minimum.curvature * np.log10(at / minimum.at) ** 2)
        name = f"{minimum.flops:.3g} FLOPs"
        series.append(_line(name, at, losses))
    figure = Figure(
        "law-minima",
        title,
        f"A parabola in log N for each budget: {_lowest(found.minima)}. Parabolas are biased where "
        "the law is not symmetric; where N and D both vary, the law itself is the better fit.",
        Axis("parameters that a token uses, N", log=True),
        Axis(LOSSES[alike.loss]),
        series=tuple(series),
    )
    return [Law("minima", title, found.fit, tuple(run.name for run in alike.runs), (figure,))]


def _lowest(minima: Sequence[laws.Minimum]) -> str:
    return "; ".join(
        f"{m.flops:.3g} FLOPs lowest at N = {_short(m.at)} ({_short(m.low)} to {_short(m.high)})"
        for m in minima
    )


@dataclasses.dataclass(frozen=True)
class _Line:
    """A line of a law along one variable, the others at these values."""

    name: str
    at: dict[str, float]


_AXES = {
    "N": "parameters that a token uses, N",
    "D": "training tokens, D",
    "experts": "experts",
}


def _drawn(
    name: str, title: str, fit: laws.Fit, runs: _Runs, along: str, lines: Sequence[_Line]
) -> Law:
    """A law with its figures: its lines among the points, and residuals against predictions."""
    columns = {"N": runs.N_P, "D": runs.D_P, "experts": runs.experts_P}
    used = list(fit.used)
    at = np.geomspace(*_ends(columns[along][used]), _ALONG)
    series: list[Series] = []
    for line in lines:
        fixed = {key: np.full(_ALONG, value) for key, value in line.at.items()}
        series += _law_line(line.name, fit, at, {along: at, **fixed})
    series += _dots(runs, columns[along])
    among = Figure(
        f"law-{name}",
        title,
        f"{fit.form}. Bands are {fit.confidence:.0%} intervals of the law over {fit.resamples:,} "
        "resamples of the runs.",
        Axis(_AXES[along], log=True),
        Axis(LOSSES[runs.loss]),
        series=tuple(series),
    )
    predicted = runs.loss_P[used] * np.exp(-fit.residuals)
    left = dataclasses.replace(
        runs.where(np.isin(np.arange(len(runs.runs)), used)), loss_P=100 * fit.residuals
    )
    residuals = Figure(
        f"residuals-{name}",
        f"What it leaves: {title}",
        "Measured over predicted loss, as its logarithm. A pattern here says that the law is not "
        "that of these runs.",
        Axis("predicted loss"),
        Axis("residual (%)"),
        series=tuple(_dots(left, predicted)),
    )
    return Law(name, title, fit, tuple(run.name for run in runs.runs), (among, residuals))


def _law_line(name: str, fit: laws.Fit, at: np.ndarray, columns: dict) -> list[Series]:
    low, high = fit.interval(**columns)
    losses = fit.predict(**columns)
    band = tuple(
        Point(float(x), float(y), float(a), float(b))
        for x, y, a, b in zip(at, losses, low, high, strict=True)
    )
    return [Series(name, "band", band), _line(name, at, losses)]


def _line(name: str, xs: np.ndarray, ys: np.ndarray) -> Series:
    points = zip(xs, ys, strict=True)
    return Series(name, "line", tuple(Point(float(x), float(y)) for x, y in points))


def _dots(runs: _Runs, x_P: np.ndarray) -> list[Series]:
    """The points of each group."""
    by_group: dict[str, list[Point]] = {}
    for run, group, x, loss in zip(runs.runs, runs.groups, x_P, runs.loss_P, strict=True):
        by_group.setdefault(group, []).append(Point(float(x), float(loss), run=run.name))
    return [Series(name, "points", tuple(points), name) for name, points in by_group.items()]


def _ends(values: np.ndarray) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _short(value: float) -> str:
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def plain(law: Law) -> dict[str, Any]:
    """A law as report.json has it."""
    fit = law.fit.as_json()
    left_out = [{"run": law.runs[one["point"]], "why": one["why"]} for one in fit.pop("left_out")]
    held_out = fit.pop("held_out")
    return {
        "id": law.id,
        "title": law.title,
        **{name: value for name, value in fit.items() if name not in ("used", "residuals")},
        "points": [law.runs[n] for n in law.fit.used],
        "residuals": law.fit.residuals.tolist(),
        "left_out": left_out,
        "held_out": held_out and {**held_out, "points": [law.runs[n] for n in held_out["points"]]},
        "figures": [dataclasses.asdict(figure) for figure in law.figures],
    }
