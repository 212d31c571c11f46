"""Minima at equal compute: a parabola for each budget, a power law through their lowest points.

Chinchilla's second approach (arXiv 2203.15556, section 3.2). **Parabolas are biased.** A loss that
follows L = E + A / N^alpha + B / D^beta is not symmetric about its minimum in log N, so the
parabola's vertex lies beside it even without noise, the more so the wider and the less centred the
points, and the exponent with it (arXiv 2603.22339). Where N and D both vary, fit that law itself.
"""

from dataclasses import dataclass

import numpy as np

from switchx.reports.laws.fit import (
    RESAMPLE_TOLERANCE,
    Fit,
    HeldOut,
    coefficient,
    percentiles,
)
from switchx.reports.laws.points import LeftOut, TooFewPointsError, usable
from switchx.reports.laws.solve import minimise

DELTA = 1e-3
_FEWEST_POINTS, _FEWEST_BUDGETS = 4, 3
# Runs are of one budget whose compute is at most this share above its smallest.
_SAME = 0.1


@dataclass(frozen=True)
class Minimum:
    """The lowest point of a budget's parabola.

    Attributes:
      flops: of the budget, the geometric mean of its runs.
      at: N there, and the interval of it over resamples, `low` to `high`.
      loss: nats a token, by the parabola.
      curvature: c of the parabola ln L = ln `loss` + c (log10 (N / `at`))^2.
      points: the numbers of the points that it is drawn through.
    """

    flops: float
    at: float
    low: float
    high: float
    loss: float
    curvature: float
    points: tuple[int, ...]


@dataclass(frozen=True)
class IsoFlops:
    """The minima of the budgets, smallest first, and the power law through them.

    The residuals of `fit` are of the minima, its `used` the points of all parabolas.
    """

    minima: tuple[Minimum, ...]
    fit: Fit


def isoflops(
    flops_P: np.ndarray,
    N_P: np.ndarray,
    loss_P: np.ndarray,
    seed: int = 0,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> IsoFlops:
    """Where each budget's loss is lowest, and N = k C^g through those.

    Each parabola is of ln L in log10 N, by Huber's loss with delta 0.001; the
    power law by least squares of logs. Resamples are drawn among each budget's runs.

    Args:
      flops_P: compute of each run, training included.
      N_P: parameters of each run.

    Raises:
      TooFewPointsError: fewer than 3 budgets with a minimum among their points.
    """
    form = "N at the lowest loss = k C^g"
    used, left = usable({"C": flops_P, "N": N_P}, loss_P)
    flops_P, N_P, loss_P = (np.asarray(x, float) for x in (flops_P, N_P, loss_P))
    random = np.random.default_rng(seed)
    minima, samples, left_out = [], [], list(left)
    for points in _budgets(flops_P, used):
        budget = _Budget(np.log10(N_P[points]), np.log(loss_P[points]))
        why = budget.without_minimum()
        if why:
            left_out += [LeftOut(int(point), why) for point in points]
            continue
        samples.append(budget.resampled(random, resamples))
        flops = float(np.exp(np.log(flops_P[points]).mean()))
        minima.append(budget.minimum(flops, points, samples[-1], confidence))
    if len(minima) < _FEWEST_BUDGETS:
        raise TooFewPointsError(form, _FEWEST_BUDGETS, len(minima), "budgets with a minimum inside")
    left_out.sort(key=lambda left: left.point)
    fit = _through(form, minima, np.array(samples), left_out, seed, confidence)
    return IsoFlops(tuple(minima), fit)


def _budgets(flops_P: np.ndarray, used: np.ndarray) -> list[np.ndarray]:
    groups: list[list[int]] = []
    for point in used[np.argsort(flops_P[used], kind="stable")]:
        if groups and flops_P[point] <= flops_P[groups[-1][0]] * (1 + _SAME):
            groups[-1].append(point)
        else:
            groups.append([point])
    return [np.sort(group) for group in groups]


@dataclass(frozen=True)
class _Budget:
    """The runs of one budget. Letters: R fits, P points, K the 3 coefficients of a parabola.

    Attributes:
      logs_P: log10 N.
      target_P: ln L.
    """

    logs_P: np.ndarray
    target_P: np.ndarray

    def without_minimum(self) -> str:
        """Why it has no minimum; empty if it has one."""
        if len(np.unique(self.logs_P)) < _FEWEST_POINTS:
            return f"its budget has fewer than {_FEWEST_POINTS} different values"
        inside = np.isfinite(self._lowest(self._whole()[None])[0])
        return "" if inside else "its budget's parabola has no minimum among its points"

    def resampled(self, random: np.random.Generator, resamples: int) -> np.ndarray:
        """log10 of where resamples are lowest, of R; nan where they have no minimum."""
        points = len(self.logs_P)
        weights_RP = random.multinomial(points, np.full(points, 1 / points), size=resamples)
        start_RK = np.tile(self._whole(), (resamples, 1))
        lowest_R = self._lowest(self._parabolas(start_RK, weights_RP, RESAMPLE_TOLERANCE))
        return np.where((weights_RP > 0).sum(axis=1) < 3, np.nan, lowest_R)

    def minimum(
        self, flops: float, points: np.ndarray, lowest_R: np.ndarray, confidence: float
    ) -> Minimum:
        """The minimum, which must be there, with its interval over those of resamples."""
        p0, p1, p2 = self._whole()
        at = float(self._lowest(np.array([[p0, p1, p2]]))[0])
        there_R = lowest_R[np.isfinite(lowest_R)]
        low, high = percentiles(there_R, confidence) if len(there_R) else (np.nan, np.nan)
        top = float(p0 + p1 * (at - self.logs_P.mean()) / 2)
        return Minimum(
            flops=flops,
            at=10.0**at,
            low=float(10.0**low),
            high=float(10.0**high),
            loss=float(np.exp(top)),
            curvature=float(p2),
            points=tuple(points.tolist()),
        )

    def _whole(self) -> np.ndarray:
        """The parabola through all points, from that of least squares on."""
        squares_K = np.linalg.lstsq(self._powers(), self.target_P, rcond=None)[0]
        return self._parabolas(squares_K[None], np.ones((1, len(self.logs_P))), 1e-13)[0]

    def _powers(self) -> np.ndarray:
        return (self.logs_P - self.logs_P.mean())[:, None] ** np.arange(3)

    def _parabolas(
        self, start_RK: np.ndarray, weights_RP: np.ndarray, tolerance: float
    ) -> np.ndarray:
        powers_PK = self._powers()
        slopes_RPK = np.broadcast_to(powers_PK, (len(start_RK), *powers_PK.shape))

        def model(theta_RK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return theta_RK @ powers_PK.T, slopes_RPK[: len(theta_RK)]

        free_K = np.full(3, np.inf)
        bounds = -free_K, free_K
        return minimise(
            model, self.target_P, start_RK, weights_RP, DELTA, *bounds, tolerance=tolerance
        )[0]

    def _lowest(self, theta_RK: np.ndarray) -> np.ndarray:
        """log10 of where each is lowest; nan if it opens downwards or lies outside the points."""
        curved_R = np.where(theta_RK[:, 2] > 0, theta_RK[:, 2], np.nan)
        lowest_R = self.logs_P.mean() - theta_RK[:, 1] / (2 * curved_R)
        inside_R = (lowest_R > self.logs_P.min()) & (lowest_R < self.logs_P.max())
        return np.where(inside_R, lowest_R, np.nan)


def _through(
    form: str,
    minima: list[Minimum],
    samples_BR: np.ndarray,
    left_out: list[LeftOut],
    seed: int,
    confidence: float,
) -> Fit:
    """The line through log10 of the minima, those of each resample, and all but the largest."""
    compute_B = np.log10([minimum.flops for minimum in minima])
    at_B = np.log10([minimum.at for minimum in minima])
    theta_K = _line(compute_B, at_B[None])[0]
    enough_R = np.isfinite(samples_BR).sum(axis=0) >= _FEWEST_BUDGETS
    resampled_RK = _line(compute_B, samples_BR[:, enough_R].T)
    spread = {"k": 10.0 ** resampled_RK[:, 0], "g": resampled_RK[:, 1]}
    smaller_K = _line(compute_B[:-1], at_B[None, :-1])[0]
    error = abs(at_B[-1] - smaller_K @ [1, compute_B[-1]]) * np.log(10)
    residuals = (at_B - theta_K[0] - theta_K[1] * compute_B) * np.log(10)
    return Fit(
        form=form,
        coefficients={
            name: coefficient(value, spread[name], confidence)
            for name, value in {"k": 10.0 ** theta_K[0], "g": theta_K[1]}.items()
        },
        confidence=confidence,
        resamples=len(resampled_RK),
        seed=seed,
        used=tuple(sorted(point for minimum in minima for point in minimum.points)),
        residuals=residuals,
        left_out=tuple(left_out),
        held_out=HeldOut(minima[-1].points, float(error), "fitted without the largest budget"),
        fitting_loss="parabolas: Huber with delta 0.001 of ln L; through minima: squares of logs",
        reached=float(np.sum(residuals**2)),
        starts=1,
        notes=("parabolas are biased: see the joint law where there is one",),
        _at=lambda columns, theta_RK: (
            10.0 ** (theta_RK[:, :1] + theta_RK[:, 1:] * np.log10(np.atleast_1d(columns["C"])))
        ),
        _theta_K=theta_K,
        _resampled_RK=resampled_RK,
    )


def _line(x_B: np.ndarray, y_RB: np.ndarray) -> np.ndarray:
    """Intercept and slope by least squares of each row, through what is finite of it: (R, 2)."""
    there_RB = np.isfinite(y_RB)
    count_R = there_RB.sum(axis=1)
    away_RB = np.where(there_RB, x_B - (there_RB @ x_B / count_R)[:, None], 0)
    y_RB = np.where(there_RB, y_RB, 0)
    slope_R = np.sum(away_RB * y_RB, axis=1) / np.sum(away_RB**2, axis=1)
    return np.stack([(y_RB.sum(axis=1) - slope_R * (there_RB @ x_B)) / count_R, slope_R], axis=1)
