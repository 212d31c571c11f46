"""Fits of published tables against published coefficients."""

import csv
from pathlib import Path

import numpy as np
import pytest

from switchx.reports import laws

DATA = Path(__file__).parent / "data"
# Besiroglu et al. 2024 (2404.10102) with the standard errors of their 4,000 resamples.
REFIT = {
    "E": (1.817, 0.026),
    "A": (482, 125),
    "alpha": (0.348, 0.015),
    "B": (2085, 1293),
    "beta": (0.366, 0.021),
}
# Clark et al. 2022 (2202.01169), table 3, RL-R.
ROUTED = {"a": -0.083, "b": -0.126, "c": 0.012, "d": 1.111, "E_start": 1.880, "E_max": 469.982}
# Least squares of the same 59 points from 500 random starts of L-BFGS, done once.
SQUARES = {"a": -0.0827, "b": -0.1234, "c": 0.0112, "d": 1.1070, "E_start": 1.72, "E_max": 470}


def rows(name):
    with (DATA / name).open() as lines:
        return list(csv.reader(line for line in lines if not line.startswith("#")))[1:]


@pytest.fixture(scope="module")
def chinchilla_fit():
    millions, exaflops, loss = np.array(rows("chinchilla.csv"), float).T
    N, C = 1e6 * millions, 1e18 * exaflops
    return laws.chinchilla(N, C / 6 / N, loss, drop_highest=5, resamples=400)


@pytest.mark.parametrize("name", REFIT)
def test_epochs_refit_of_chinchilla(chinchilla_fit, name):
    ours, (value, error) = chinchilla_fit.coefficients[name], REFIT[name]
    assert abs(ours.value - value) < error
    assert ours.standard_error == pytest.approx(error, rel=0.3)
    assert ours.low < value < ours.high


def test_the_minimum_is_theirs_or_lower(chinchilla_fit):
    assert len(chinchilla_fit.used) == 240
    assert {out.why for out in chinchilla_fit.left_out} == {"among the 5 highest losses"}
    # What their best start reached; ours are rounded to six digits.
    assert chinchilla_fit.reached == pytest.approx(0.00101827, rel=1e-3)


def test_the_table_of_routed_models():
    points = [
        (float(row[0]), 2.0**power, float(loss))
        for row in rows("routed.csv")
        for power, loss in enumerate(row[1:])
        if loss
    ]
    fit = laws.routed(*np.array(points).T, resamples=400)
    assert len(fit.used) == 59
    for name, value in ROUTED.items():
        ours = fit.coefficients[name]
        assert abs(ours.value - value) < ours.standard_error, name
        assert ours.value == pytest.approx(SQUARES[name], rel=2e-3, abs=6e-5), name
    assert np.std(fit.residuals) / np.log(10) == pytest.approx(0.003, abs=5e-4)
    assert "59 points of the largest N times experts" in fit.held_out.how


def test_the_papers_figure_of_experts():
    """Figure 4 left is no power law: the saturating form fits its nine points."""
    perplexity = np.array([6.00, 5.88, 5.70, 5.50, 5.29, 5.13, 5.02, 4.92, 4.845])
    experts, loss = 2.0 ** np.arange(9), np.log(perplexity)
    fit = laws.routed_at_one_size(experts, loss, resamples=50)
    assert fit.coefficients["E_start"].value == pytest.approx(2.6, abs=0.05)
    assert fit.coefficients["E_max"].value == pytest.approx(58, abs=1)
    assert np.abs(fit.residuals).max() / np.log(10) < 0.00095
    line = laws.power_law(experts, loss, "experts", floor=False, resamples=50)
    assert np.abs(line.residuals).max() / np.log(10) > 0.003
