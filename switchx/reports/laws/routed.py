"""The law of routed models: how loss falls with their experts, and where that ends.

Clark et al. 2022 (arXiv 2202.01169), equations 1 and 8: with N the parameters that one token uses
and Ê the experts, saturated at both ends,

  log L = a log N + b log Ê + c log N log Ê + d,
  1 / Ê = 1 / (E - 1 + (1 / E_start - 1 / E_max)^-1) + 1 / E_max,

so that Ê is E_start for a dense model and E_max for endless experts. Logarithms are to base 10:
the published coefficients come out with no other. For given E_start and E_max the law is linear, so
the search has two dimensions.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from switchx.reports.laws.solve import lowest_minima

# log10 of E_start, and of E_max / E_start. Beyond a factor of 1e4 no saturation can be told.
_START, _RATIO = (-0.5, 2.5), (0.15, 4.0)
_CELLS, _STARTS = 24, 6
_LINEAR = 1e3  # bound of coefficients that are linear: none in effect


def saturated(experts: np.ndarray, e_start: float, e_max: float) -> np.ndarray:
    """Ê of 2202.01169, equation 8; E_start at one expert, E_max at endlessly many."""
    return 1 / (1 / (experts - 1 + 1 / (1 / e_start - 1 / e_max)) + 1 / e_max)


def effective_size(
    N: np.ndarray, experts: np.ndarray, coefficients: Mapping[str, float]
) -> np.ndarray:
    """N̄, the dense model's size of equal loss by the law: 2202.01169, section 5.3.

    With s(E) = a + c log10 E: N̄ = N^(s(Ê) / s(E_start)) (Ê / E_start)^(b / s(E_start)).
    """
    e_start = coefficients["E_start"]
    at = saturated(np.asarray(experts, float), e_start, coefficients["E_max"])
    a, b, c = (coefficients[name] for name in "abc")
    dense = a + c * np.log10(e_start)
    return N ** ((a + c * np.log10(at)) / dense) * (at / e_start) ** (b / dense)


@dataclass(frozen=True)
class Routed:
    """The law over sizes and experts, or over experts alone where all models are of one size.

    Attributes:
      sizes: whether N varies. If not, log L = b log Ê + d.
    """

    sizes: bool

    delta = np.inf
    base = 10.0
    fitting_loss = "squares of log10 L, summed"

    @property
    def form(self) -> str:
        rest = "1/Ê = 1/(experts - 1 + (1/E_start - 1/E_max)^-1) + 1/E_max"
        law = "a log10 N + b log10 Ê + c log10 N log10 Ê + d" if self.sizes else "b log10 Ê + d"
        return f"log10 L = {law}, {rest}"

    @property
    def variables(self) -> tuple[str, ...]:
        return ("N", "experts") if self.sizes else ("experts",)

    @property
    def parameters(self) -> int:
        return 6 if self.sizes else 4

    @property
    def distinct(self) -> dict[str, int]:
        return {"N": 2, "experts": 4} if self.sizes else {"experts": 5}

    def design(self, columns: Mapping[str, np.ndarray], like: "Design | None" = None) -> "Design":
        logs_P = np.log10(columns["N"]) if self.sizes else np.zeros(len(columns["experts"]))
        centre = float(logs_P.mean()) if like is None else like.centre
        return Design(self, logs_P - centre, np.asarray(columns["experts"], float), centre)


@dataclass(frozen=True)
class Design:
    """The points as the law sees them. Letters: R fits, P points, K parameters.

    A parameter vector is the linear coefficients at the centre of the sizes (of b, d, then a, c if
    sizes vary), then log10 E_start and log10 (E_max / E_start).

    Attributes:
      logs_P: log10 of the sizes, less the centre.
      experts_P: experts.
    """

    law: Routed
    logs_P: np.ndarray
    experts_P: np.ndarray
    centre: float

    def columns(self, log_hat_RP: np.ndarray) -> np.ndarray:
        """What the linear coefficients are of: (R, P, K - 2)."""
        ones_RP = np.ones_like(log_hat_RP)
        columns = [log_hat_RP, ones_RP]
        if self.law.sizes:
            columns += [ones_RP * self.logs_P, log_hat_RP * self.logs_P]
        return np.stack(columns, axis=2)

    def model(self, theta_RK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """log10 L at each point, and its derivatives."""
        log_hat_RP, by_start_RP, by_ratio_RP = self._log_hat(theta_RK[:, -2], theta_RK[:, -1])
        columns_RPK = self.columns(log_hat_RP)
        predicted_RP = np.einsum("rpk,rk->rp", columns_RPK, theta_RK[:, :-2])
        slope_RP = theta_RK[:, :1] + (theta_RK[:, 3:4] * self.logs_P if self.law.sizes else 0)
        saturating = np.stack([slope_RP * by_start_RP, slope_RP * by_ratio_RP], axis=2)
        return predicted_RP, np.concatenate([columns_RPK, saturating], axis=2)

    def _log_hat(
        self, start_R: np.ndarray, ratio_R: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """log10 Ê and its derivatives by log10 E_start and log10 (E_max / E_start), each (R, P)."""
        start_R1, inverse_R1 = 10.0 ** start_R[:, None], 10.0 ** -ratio_R[:, None]
        top_R1 = start_R1 / inverse_R1
        first_R1 = start_R1 / (1 - inverse_R1)  # (1 / E_start - 1 / E_max)^-1
        rising_RP = self.experts_P - 1 + first_R1
        # Ê = rising top / (rising + top), so its relative change is shared out between the two.
        by_rising_RP = top_R1 / (rising_RP + top_R1)
        by_start_RP = by_rising_RP * first_R1 / rising_RP + (1 - by_rising_RP)
        first_by_ratio_R1 = -first_R1 * inverse_R1 / (1 - inverse_R1)
        by_ratio_RP = by_rising_RP * first_by_ratio_R1 / rising_RP + (1 - by_rising_RP)
        return np.log10(rising_RP * by_rising_RP), by_start_RP, by_ratio_RP

    def bounds(self, target_P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        linear = self.law.parameters - 2
        low, high = zip(_START, _RATIO, strict=True)
        return np.array([-_LINEAR] * linear + list(low)), np.array([_LINEAR] * linear + list(high))

    def starts(self, target_P: np.ndarray) -> np.ndarray:
        """The lowest minima on a grid over E_start and E_max, of shape (starts, K)."""
        axes = np.linspace(*_START, _CELLS), np.linspace(*_RATIO, _CELLS)
        start_G, ratio_G = (axis.ravel() for axis in np.meshgrid(*axes))
        columns_GPK = self.columns(self._log_hat(start_G, ratio_G)[0])
        linear_GK = np.einsum("gkp,p->gk", np.linalg.pinv(columns_GPK), target_P)
        errors_GP = np.einsum("gpk,gk->gp", columns_GPK, linear_GK) - target_P
        best = lowest_minima(np.sum(errors_GP**2, axis=1).reshape(_CELLS, _CELLS), _STARTS)
        return np.column_stack([linear_GK, start_G, ratio_G])[best]

    def coefficients(self, theta_RK: np.ndarray) -> dict[str, np.ndarray]:
        """Each coefficient by its published name, of R, for N itself."""
        start_R, ratio_R = theta_RK[:, -2], theta_RK[:, -1]
        named = {"b": theta_RK[:, 0], "d": theta_RK[:, 1]}
        if self.law.sizes:
            a_R, c_R = theta_RK[:, 2], theta_RK[:, 3]
            b_R, d_R = named["b"] - c_R * self.centre, named["d"] - a_R * self.centre
            named = {"a": a_R, "b": b_R, "c": c_R, "d": d_R}
        return named | {"E_start": 10.0**start_R, "E_max": 10.0 ** (start_R + ratio_R)}

    def notes(self, held_K: np.ndarray) -> tuple[str, ...]:
        """What bounds say; `held_K` is -1 at a lower one, 1 at an upper one, 0 inside."""
        if held_K[-1] > 0:
            return ("no saturation is seen: E_max lies beyond the points, its value means nothing",)
        if held_K[-2] or held_K[-1]:
            return ("E_start and E_max are not determined by these points",)
        return ()
