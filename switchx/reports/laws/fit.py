"""Fitting a law: coefficients, their intervals, and the error on points that it has not seen."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from switchx.reports.laws.points import LeftOut, TooFewPointsError, require, usable
from switchx.reports.laws.solve import minimise

_HELD_OUT = 0.1  # the share of the points that the check of extrapolation leaves out, the largest
# A resample's coefficients need not be better than a thousandth of their spread.
RESAMPLE_TOLERANCE = 1e-6
_DRAWS = 100  # of a resample, until it has enough different values for the law


class Design(Protocol):
    """A law at some points: predictions, and where to search. R fits, P points, K parameters."""

    def model(self, theta_RK: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...
    def bounds(self, target_P: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...
    def starts(self, target_P: np.ndarray) -> np.ndarray: ...
    def coefficients(self, theta_RK: np.ndarray) -> dict[str, np.ndarray]: ...
    def notes(self, held_K: np.ndarray) -> tuple[str, ...]: ...


class Law(Protocol):
    """A form of law.

    Attributes:
      form: the formula in one line.
      variables: names of the columns it takes.
      parameters: how many coefficients it has.
      distinct: how many different values of each variable determine them.
      base: of the logarithm in which it is fitted.
      delta: of the Huber loss; infinite for squares.
      fitting_loss: what is minimised, in words.
    """

    @property
    def form(self) -> str: ...
    @property
    def variables(self) -> tuple[str, ...]: ...
    @property
    def parameters(self) -> int: ...
    @property
    def distinct(self) -> dict[str, int]: ...
    @property
    def base(self) -> float: ...
    @property
    def delta(self) -> float: ...
    @property
    def fitting_loss(self) -> str: ...
    def design(self, columns: Mapping[str, np.ndarray], like: Any = None) -> Design: ...


@dataclass(frozen=True)
class Coefficient:
    """A coefficient, its standard error and interval over resamples of the runs."""

    value: float
    low: float
    high: float
    standard_error: float


@dataclass(frozen=True)
class HeldOut:
    """How well the law, fitted to the smaller points, predicts the largest.

    Attributes:
      points: the numbers of the points that were predicted.
      error: root mean square of ln (measured / predicted).
      how: which points, in words.
    """

    points: tuple[int, ...]
    error: float
    how: str


@dataclass(frozen=True)
class Fit:
    """A law fitted to points, with what its reader needs to judge it.

    Attributes:
      form: the law in one line.
      coefficients: by name.
      confidence: of their intervals, which are percentiles over resamples.
      resamples: how many, with `seed`.
      used: the numbers of the points it was fitted to.
      residuals: ln (measured / predicted) of each of those.
      left_out: the other points, and why.
      held_out: the error on points that the fit did not see; None if too few points were left.
      fitting_loss: what was minimised, and `reached`, its value there.
      starts: how many starting points the search went on from.
      notes: what these points do not determine.
    """

    form: str
    coefficients: dict[str, Coefficient]
    confidence: float
    resamples: int
    seed: int
    used: tuple[int, ...]
    residuals: np.ndarray
    left_out: tuple[LeftOut, ...]
    held_out: HeldOut | None
    fitting_loss: str
    reached: float
    starts: int
    notes: tuple[str, ...]
    _at: Callable[[Mapping[str, np.ndarray], np.ndarray], np.ndarray] = field(repr=False)
    _theta_K: np.ndarray = field(repr=False)
    _resampled_RK: np.ndarray = field(repr=False)

    @property
    def error(self) -> float:
        """The root mean square of the residuals."""
        return float(np.sqrt(np.mean(self.residuals**2)))

    def values(self) -> dict[str, float]:
        """The coefficients alone."""
        return {name: coefficient.value for name, coefficient in self.coefficients.items()}

    def predict(self, **columns: np.ndarray) -> np.ndarray:
        """The law's loss at these values of its variables, of the same length."""
        return self._at(columns, self._theta_K[None])[0]

    def interval(self, **columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Between which losses the law lies there, over the resamples: of the law, not of a run.

        Resamples of P points with K coefficients spread too little, as residuals do; their distance
        from the fit, in ln L, is made wider by (P / (P - K))^(1/2).
        """
        points, wider = len(self.residuals), 1.0
        if points > len(self._theta_K):
            wider = float(np.sqrt(points / (points - len(self._theta_K))))
        fitted = self.predict(**columns)
        ratios_RP = self._at(columns, self._resampled_RK) / fitted
        low, high = percentiles(ratios_RP, self.confidence)
        return fitted * low**wider, fitted * high**wider

    def as_json(self) -> dict[str, Any]:
        """All of it in plain lists and numbers."""
        plain = {k: v for k, v in vars(self).items() if not k.startswith("_")}
        return plain | {
            "coefficients": {name: vars(c) for name, c in self.coefficients.items()},
            "residuals": self.residuals.tolist(),
            "error": self.error,
            "left_out": [vars(point) for point in self.left_out],
            "held_out": None if self.held_out is None else vars(self.held_out),
        }


def fit(
    law: Law,
    columns: Mapping[str, np.ndarray],
    loss_P: np.ndarray,
    seed: int = 0,
    resamples: int = 1000,
    confidence: float = 0.95,
    drop_highest: int = 0,
) -> Fit:
    """Fits a law by its own fitting loss, and again to resamples of the points.

    Args:
      columns: the law's variables, an array of a value for each point.
      loss_P: measured losses, nats a token.
      seed: of the resampling, the only randomness.
      drop_highest: leave out so many of the highest losses (runs too short for the law).

    Raises:
      TooFewPointsError: more coefficients than the usable points determine.
    """
    columns = {name: np.asarray(columns[name], float) for name in law.variables}
    used, left_out = usable(columns, loss_P, drop_highest)
    columns = {name: column[used] for name, column in columns.items()}
    loss_P = np.asarray(loss_P, float)[used]
    require(law.form, columns, law.parameters, law.distinct)
    design, target_P = law.design(columns), np.log(loss_P) / np.log(law.base)
    theta_K, reached, starts = _best(law, design, target_P)
    low_K, high_K = design.bounds(target_P)
    weights_RP = resampled(law, columns, np.random.default_rng(seed), resamples)
    resampled_RK, _ = minimise(
        design.model,
        target_P,
        np.tile(theta_K, (len(weights_RP), 1)),
        weights_RP,
        law.delta,
        low_K,
        high_K,
        RESAMPLE_TOLERANCE,
    )

    def at(columns: Mapping[str, np.ndarray], theta_RK: np.ndarray) -> np.ndarray:
        arrays = {name: np.atleast_1d(np.asarray(columns[name], float)) for name in law.variables}
        return law.base ** law.design(arrays, design).model(theta_RK)[0]

    return Fit(
        form=law.form,
        coefficients=_coefficients(design, theta_K, resampled_RK, confidence),
        confidence=confidence,
        resamples=len(resampled_RK),
        seed=seed,
        used=tuple(used.tolist()),
        residuals=np.log(loss_P / at(columns, theta_K[None])[0]),
        left_out=left_out,
        held_out=_held_out(law, columns, target_P, used),
        fitting_loss=law.fitting_loss,
        reached=reached,
        starts=starts,
        notes=design.notes(np.where(theta_K <= low_K, -1, np.where(theta_K >= high_K, 1, 0))),
        _at=at,
        _theta_K=theta_K,
        _resampled_RK=resampled_RK,
    )


def _best(law: Law, design: Design, target_P: np.ndarray) -> tuple[np.ndarray, float, int]:
    """The best parameters from all starts: by squares first, which are smooth, then by its loss."""
    theta_RK = design.starts(target_P)
    weights_RP = np.ones((len(theta_RK), len(target_P)))
    for delta in dict.fromkeys((np.inf, law.delta)):
        theta_RK, reached_R = minimise(
            design.model, target_P, theta_RK, weights_RP, delta, *design.bounds(target_P)
        )
    best = int(np.argmin(reached_R))
    return theta_RK[best], float(reached_R[best]), len(theta_RK)


def resampled(
    law: Law, columns: Mapping[str, np.ndarray], random: np.random.Generator, resamples: int
) -> np.ndarray:
    """How often each resample has each point, (R, P).

    One that does not determine the law is drawn anew.
    """
    points = len(next(iter(columns.values())))
    kept: list[np.ndarray] = []
    for _ in range(_DRAWS):
        missing = resamples - sum(map(len, kept))
        if not missing:
            break
        weights_RP = random.multinomial(points, np.full(points, 1 / points), size=missing)
        enough_R = (weights_RP > 0).sum(axis=1) >= law.parameters
        for name, needed in law.distinct.items():
            same_VP = np.unique(columns[name])[:, None] == columns[name]
            enough_R &= (weights_RP @ same_VP.T > 0).sum(axis=1) >= needed
        kept.append(weights_RP[enough_R])
    return np.concatenate(kept).astype(float)


def _coefficients(
    design: Design, theta_K: np.ndarray, resampled_RK: np.ndarray, confidence: float
) -> dict[str, Coefficient]:
    values, spread = design.coefficients(theta_K[None]), design.coefficients(resampled_RK)
    return {name: coefficient(value[0], spread[name], confidence) for name, value in values.items()}


def coefficient(value: float, spread_R: np.ndarray, confidence: float) -> Coefficient:
    """A coefficient with the interval and the standard error that its resamples give."""
    low, high = percentiles(spread_R, confidence)
    return Coefficient(float(value), float(low), float(high), float(np.std(spread_R, ddof=1)))


def percentiles(values_R: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """The bounds between which that share of the resamples lies, along the first axis."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(values_R, [tail, 1 - tail], axis=0)
    return low, high


def _held_out(
    law: Law, columns: Mapping[str, np.ndarray], target_P: np.ndarray, used: np.ndarray
) -> HeldOut | None:
    size_P = np.sum([np.log(column) for column in columns.values()], axis=0)
    least = np.sort(size_P)[-max(1, round(_HELD_OUT * len(size_P)))]
    large_P = size_P >= least - 1e-9  # all that are as large: runs that differ in their seed alone
    small = {name: column[~large_P] for name, column in columns.items()}
    try:
        require(law.form, small, law.parameters, law.distinct)
    except TooFewPointsError:
        return None
    design = law.design(small)
    theta_K, _, _ = _best(law, design, target_P[~large_P])
    large = law.design({name: column[large_P] for name, column in columns.items()}, design)
    errors = (target_P[large_P] - large.model(theta_K[None])[0][0]) * np.log(law.base)
    product = " times ".join(columns)
    how = f"fitted without the {large_P.sum()} of {len(size_P)} points of the largest {product}"
    return HeldOut(tuple(used[large_P].tolist()), float(np.sqrt(np.mean(errors**2))), how)
