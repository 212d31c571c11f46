"""Power laws that add up: L = E + A / N^alpha + B / D^beta, and its parts alone.

Chinchilla's third approach (arXiv 2203.15556, appendix D.3), started by variable projection (arXiv
2603.22339): for given exponents the law is linear in E, A and B, so the search has as many
dimensions as there are exponents, and none of the bad starts that five dimensions have.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from switchx.reports.laws.solve import lowest_minima

_EXPONENTS = (0.01, 4.0)  # no power law of language models was published outside
_LEAST_SHARE = 1e-6  # of the loss: a term this small is none
_CELLS = {1: 200, 2: 36}  # of a grid over the exponents, on each axis
_STARTS = 6
_LETTERS = {"N": ("A", "alpha"), "D": ("B", "beta")}


@dataclass(frozen=True)
class Additive:
    """L = [E +] the sum of a constant over each variable to a power.

    Attributes:
      variables: names of the columns: ("N",), ("D",), ("N", "D") or another one.
      floor: whether there is an E, the loss that no size removes.
    """

    variables: tuple[str, ...]
    floor: bool

    # Chinchilla's: of ln L, which is near the relative error, and linear beyond a thousandth.
    delta = 1e-3
    base = float(np.e)
    fitting_loss = "Huber with delta 0.001 of ln L, summed"

    @property
    def names(self) -> list[tuple[str, str]]:
        """Of each variable's constant and exponent."""
        return [_LETTERS.get(variable, ("A", "alpha")) for variable in self.variables]

    @property
    def form(self) -> str:
        powers = zip(self.variables, self.names, strict=True)
        return "L = " + " + ".join(["E"] * self.floor + [f"{a} / {x}^{p}" for x, (a, p) in powers])

    @property
    def parameters(self) -> int:
        return self.floor + 2 * len(self.variables)

    @property
    def distinct(self) -> dict[str, int]:
        return dict.fromkeys(self.variables, 3 if self.floor else 2)

    def design(self, columns: Mapping[str, np.ndarray], like: "Design | None" = None) -> "Design":
        logs_PT = np.stack([np.log(columns[variable]) for variable in self.variables], axis=1)
        centres_T = logs_PT.mean(axis=0) if like is None else like.centres_T
        return Design(self, logs_PT - centres_T, centres_T)


@dataclass(frozen=True)
class Design:
    """The points as the law sees them. Letters: R fits, P points, T terms, K parameters.

    A parameter vector is [ln E,] and for each term ln of its value at the centre of the points and
    its exponent. There the two hardly depend on each other; at N = 1 they do entirely.

    Attributes:
      logs_PT: natural logs of the variables, less their means.
      centres_T: those means.
    """

    law: Additive
    logs_PT: np.ndarray
    centres_T: np.ndarray

    def model(self, theta_RK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """ln L at each point, the log of a sum of exponentials, and its derivatives."""
        floor = self.law.floor
        constants_RT, powers_RT = theta_RK[:, floor::2], theta_RK[:, floor + 1 :: 2]
        parts_RPT = constants_RT[:, None] - powers_RT[:, None] * self.logs_PT
        if floor:
            constant_RP1 = np.broadcast_to(theta_RK[:, :1, None], (*parts_RPT.shape[:2], 1))
            parts_RPT = np.concatenate([constant_RP1, parts_RPT], axis=2)
        top_RP1 = parts_RPT.max(axis=2, keepdims=True)
        shares_RPT = np.exp(parts_RPT - top_RP1)
        sum_RP1 = shares_RPT.sum(axis=2, keepdims=True)
        shares_RPT /= sum_RP1
        slopes_RPK = np.empty((*shares_RPT.shape[:2], theta_RK.shape[1]))
        slopes_RPK[:, :, :floor] = shares_RPT[:, :, :floor]
        slopes_RPK[:, :, floor::2] = shares_RPT[:, :, floor:]
        slopes_RPK[:, :, floor + 1 :: 2] = -shares_RPT[:, :, floor:] * self.logs_PT
        return (top_RP1 + np.log(sum_RP1))[:, :, 0], slopes_RPK

    def bounds(self, target_P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        lowest = np.log(_LEAST_SHARE) + target_P.min()
        term = [(lowest, target_P.max() + 5.0), _EXPONENTS]
        low_high = [(lowest, target_P.min())] * self.law.floor + term * len(self.centres_T)
        return np.array(low_high).T[0], np.array(low_high).T[1]

    def starts(self, target_P: np.ndarray) -> np.ndarray:
        """The lowest minima on a grid over the exponents, of shape (starts, K)."""
        terms = len(self.centres_T)
        axis = np.geomspace(*_EXPONENTS, _CELLS[terms])
        powers_GT = np.array(list(itertools.product(*[axis] * terms)))
        errors_G, constants_GS = self._project(powers_GT, target_P)
        best = lowest_minima(errors_G.reshape([len(axis)] * terms), _STARTS)
        logs_GS = np.log(np.maximum(constants_GS[best], _LEAST_SHARE * np.exp(target_P.min())))
        floor = self.law.floor
        theta_RK = np.empty((len(best), floor + 2 * terms))
        theta_RK[:, :floor] = logs_GS[:, :floor]
        theta_RK[:, floor::2], theta_RK[:, floor + 1 :: 2] = logs_GS[:, floor:], powers_GT[best]
        return theta_RK

    def _project(
        self, powers_GT: np.ndarray, target_P: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Errors and constants of the best non-negative constants for each choice of exponents.

        Errors are relative to the loss, so nearly those of ln L. There are three constants at most:
        the best non-negative ones are the best of those among all subsets' least squares.
        """
        columns_GPS = np.exp(-powers_GT[:, None] * self.logs_PT)
        if self.law.floor:
            ones_GP1 = np.ones((*columns_GPS.shape[:2], 1))
            columns_GPS = np.concatenate([ones_GP1, columns_GPS], axis=2)
        columns_GPS /= np.exp(target_P)[:, None]
        scales_GS = np.sqrt(np.sum(columns_GPS**2, axis=1))
        columns_GPS /= scales_GS[:, None]
        gram_GSS = np.swapaxes(columns_GPS, 1, 2) @ columns_GPS
        right_GS = columns_GPS.sum(axis=1)
        errors_G, constants_GS = np.full(len(powers_GT), np.inf), np.zeros_like(right_GS)
        size = right_GS.shape[1]
        subsets = (s for n in range(1, size + 1) for s in itertools.combinations(range(size), n))
        for kept in subsets:
            # The little that is added keeps columns that are equal (an exponent near 0) solvable.
            some_GSS = gram_GSS[:, kept][:, :, kept] + 1e-12 * np.eye(len(kept))
            solved_GS = np.linalg.solve(some_GSS, right_GS[:, kept, None])[:, :, 0]
            error_G = len(target_P) - np.sum(solved_GS * right_GS[:, kept], axis=1)
            better_G = (solved_GS >= 0).all(axis=1) & (error_G < errors_G)
            errors_G[better_G] = error_G[better_G]
            constants_GS[better_G] = 0
            constants_GS[np.ix_(better_G, kept)] = solved_GS[better_G]
        return errors_G, constants_GS / scales_GS

    def coefficients(self, theta_RK: np.ndarray) -> dict[str, np.ndarray]:
        """Each coefficient by its name, of R: constants are for variables in their own units."""
        floor = self.law.floor
        named = {"E": np.exp(theta_RK[:, 0])} if floor else {}
        for t, (constant, power) in enumerate(self.law.names):
            power_R = theta_RK[:, floor + 2 * t + 1]
            named[constant] = np.exp(theta_RK[:, floor + 2 * t] + power_R * self.centres_T[t])
            named[power] = power_R
        return named

    def notes(self, held_K: np.ndarray) -> tuple[str, ...]:
        """What bounds say; `held_K` is -1 at a lower one, 1 at an upper one, 0 inside."""
        floor, notes = self.law.floor, []
        if floor and held_K[0] < 0:
            notes.append("no floor is seen: the best E is 0")
        for t, (constant, power) in enumerate(self.law.names):
            if held_K[floor + 2 * t] or held_K[floor + 2 * t + 1]:
                notes.append(f"{constant} and {power} are not determined by these points")
        return tuple(notes)
