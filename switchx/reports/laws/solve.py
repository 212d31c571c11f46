"""Least squares and Huber regression of many resamples at once: damped Newton steps in NumPy.

A bootstrap fits one law to a thousand resamples of the same points, which differ in their weights
alone. So every array has a leading axis R of fits that go on together. Letters: R fits, P points,
K parameters.
"""

import itertools
from collections.abc import Callable

import numpy as np

# Predictions (R, P) and their derivatives (R, P, K) at parameters (R, K).
Model = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
_MOST_DAMPING, _LEAST_DAMPING = 1e10, 1e-12


def huber(residuals: np.ndarray, delta: float) -> np.ndarray:
    """r^2 / 2 up to delta, delta (|r| - delta / 2) beyond (Huber 1964); delta may be infinite."""
    near = np.minimum(np.abs(residuals), delta)
    return near * (np.abs(residuals) - near / 2)


def minimise(
    model: Model,
    target_P: np.ndarray,
    theta_RK: np.ndarray,
    weights_RP: np.ndarray,
    delta: float,
    low_K: np.ndarray,
    high_K: np.ndarray,
    tolerance: float = 1e-13,
    most_steps: int = 200,
) -> tuple[np.ndarray, np.ndarray]:
    """Minimises each fit's weighted sum of Huber losses within a box, from where it stands.

    The step solves (H + damping diag(M)) step = -gradient: H has the curvature of the points within
    delta, beyond which the loss is straight; M that of the parabolas which touch each point's loss
    where it is and lie above it everywhere. Damping falls with each step that helps and rises
    with each that does not. A parameter that the gradient pushes against its bound stays there.

    Args:
      tolerance: a fit has ended when no parameter moves by more than this share of 1 + its size.

    Returns:
      theta_RK, and the sums that they reach, of R.
    """
    theta_RK = np.clip(theta_RK, low_K, high_K)
    value_R, gradient_RK, newton_RKK, bound_RK = _expand(
        model, target_P, theta_RK, weights_RP, delta
    )
    damping_R = np.full(len(theta_RK), 1e-2)
    going = np.arange(len(theta_RK))
    for _ in range(most_steps):
        here_RK = theta_RK[going]
        step_RK = _step(
            here_RK,
            gradient_RK[going],
            newton_RKK[going],
            bound_RK[going],
            damping_R[going],
            low_K,
            high_K,
        )
        trial_RK = np.clip(here_RK + step_RK, low_K, high_K)
        trial = _expand(model, target_P, trial_RK, weights_RP[going], delta)
        better = trial[0] <= value_R[going]
        moved_R = np.max(np.abs(trial_RK - here_RK) / (1 + np.abs(here_RK)), axis=1)
        won, lost = going[better], going[~better]
        theta_RK[won] = trial_RK[better]
        for kept, new in zip((value_R, gradient_RK, newton_RKK, bound_RK), trial, strict=True):
            kept[won] = new[better]
        damping_R[won] = np.maximum(damping_R[won] / 8, _LEAST_DAMPING)
        damping_R[lost] *= 6
        going = going[(moved_R > tolerance) & (damping_R[going] < _MOST_DAMPING)]
        if not len(going):
            break
    return theta_RK, value_R


def _expand(
    model: Model, target_P: np.ndarray, theta_RK: np.ndarray, weights_RP: np.ndarray, delta: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The sum at theta, its gradient, its curvature, and the diagonal of the upper parabola's."""
    predicted_RP, slopes_RPK = model(theta_RK)
    residuals_RP = predicted_RP - target_P
    size_RP = np.abs(residuals_RP)
    value_R = np.sum(weights_RP * huber(residuals_RP, delta), axis=1)
    pull_RP = weights_RP * np.clip(residuals_RP, -delta, delta)
    gradient_RK = np.einsum("rp,rpk->rk", pull_RP, slopes_RPK)
    weighted_RPK = slopes_RPK * (weights_RP * (size_RP <= delta))[:, :, None]
    newton_RKK = np.swapaxes(weighted_RPK, 1, 2) @ slopes_RPK
    shares_RP = weights_RP * (1.0 if np.isinf(delta) else delta / np.maximum(size_RP, delta))
    bound_RK = np.einsum("rp,rpk->rk", shares_RP, slopes_RPK**2)
    return value_R, gradient_RK, newton_RKK, bound_RK


def _step(
    theta_RK: np.ndarray,
    gradient_RK: np.ndarray,
    newton_RKK: np.ndarray,
    bound_RK: np.ndarray,
    damping_R: np.ndarray,
    low_K: np.ndarray,
    high_K: np.ndarray,
) -> np.ndarray:
    held_RK = ((theta_RK <= low_K) & (gradient_RK > 0)) | ((theta_RK >= high_K) & (gradient_RK < 0))
    free_RK = ~held_RK
    # In units in which each parameter's parabola is 1: laws mix exponents with logs of constants.
    units_RK = 1 / np.sqrt(np.maximum(bound_RK, 1e-300))
    matrix_RKK = newton_RKK * units_RK[:, :, None] * units_RK[:, None, :]
    matrix_RKK = matrix_RKK * free_RK[:, :, None] * free_RK[:, None, :]
    diagonal = np.arange(theta_RK.shape[1])
    matrix_RKK[:, diagonal, diagonal] += damping_R[:, None] + held_RK
    right_RK = -gradient_RK * units_RK * free_RK
    return np.linalg.solve(matrix_RKK, right_RK[:, :, None])[:, :, 0] * units_RK


def lowest_minima(values: np.ndarray, most: int) -> np.ndarray:
    """Flat indices of cells of a grid that no neighbour lies below, the lowest first."""
    around = np.pad(values, 1, constant_values=np.inf)
    least = np.full_like(values, np.inf)
    for offsets in itertools.product((0, 1, 2), repeat=values.ndim):
        cells = tuple(slice(o, o + n) for o, n in zip(offsets, values.shape, strict=True))
        least = np.minimum(least, around[cells])
    minima = np.flatnonzero(values <= least)
    return minima[np.argsort(values.ravel()[minima], kind="stable")][:most]
