"""Laws of scale fitted to runs: pure functions of arrays, seeded, that read and write nothing.

Each fit is a `Fit`: coefficients with bootstrap intervals over runs, residuals, the points left out
and why, the error on the largest points when fitted without them, what was minimised and from how
many starts. Fewer points than a law needs are `TooFewPointsError`, never a bad fit.

Everywhere N are parameters, D tokens of all steps, L the loss in nats a token; what is counted in
them is the caller's to say (docs/laws.md).
"""

from typing import Any

import numpy as np

from switchx.reports.laws.additive import Additive
from switchx.reports.laws.fit import Coefficient, Fit, HeldOut, fit
from switchx.reports.laws.isoflop import IsoFlops, Minimum, isoflops
from switchx.reports.laws.points import LeftOut, TooFewPointsError
from switchx.reports.laws.routed import Routed, effective_size, saturated

__all__ = [
    "Coefficient",
    "Fit",
    "HeldOut",
    "IsoFlops",
    "LeftOut",
    "Minimum",
    "TooFewPointsError",
    "chinchilla",
    "effective_size",
    "isoflops",
    "power_law",
    "routed",
    "routed_at_one_size",
    "saturated",
]


def power_law(
    values_P: np.ndarray,
    loss_P: np.ndarray,
    variable: str = "N",
    floor: bool = True,
    **options: Any,
) -> Fit:
    """L = E + A / N^alpha, in any one variable ("D": B and beta); without E if `floor` is False.

    Args:
      options: `seed`, `resamples`, `confidence` and `drop_highest` of `laws.fit.fit`.
    """
    return fit(Additive((variable,), floor), {variable: values_P}, loss_P, **options)


def chinchilla(N_P: np.ndarray, D_P: np.ndarray, loss_P: np.ndarray, **options: Any) -> Fit:
    """L = E + A / N^alpha + B / D^beta: third approach of 2203.15556. Options as `power_law`."""
    return fit(Additive(("N", "D"), True), {"N": N_P, "D": D_P}, loss_P, **options)


def routed(N_P: np.ndarray, experts_P: np.ndarray, loss_P: np.ndarray, **options: Any) -> Fit:
    """The law of 2202.01169 over sizes and experts; N are parameters that one token uses.

    A dense model is one expert. All models are to be trained on equally many tokens: the law has
    none. Options as `power_law`.
    """
    return fit(Routed(True), {"N": N_P, "experts": experts_P}, loss_P, **options)


def routed_at_one_size(experts_P: np.ndarray, loss_P: np.ndarray, **options: Any) -> Fit:
    """That law for models of one size N, which differ in their experts: log10 L = b log10 Ê + d."""
    return fit(Routed(False), {"experts": experts_P}, loss_P, **options)
