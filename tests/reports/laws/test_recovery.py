"""Points made from known coefficients give them back, to 1e-6, without noise."""

import numpy as np
import pytest

from switchx.reports import laws

N_D = np.array([(n, d) for n in np.geomspace(1e7, 1e10, 5) for d in np.geomspace(1e9, 3e11, 4)]).T
EXPERTS = 2.0 ** np.arange(9)
FEW = {"resamples": 30}


def recovered(fit, truth):
    assert list(fit.coefficients) == list(truth)
    for name, value in truth.items():
        assert fit.coefficients[name].value == pytest.approx(value, rel=1e-6), name
        # Resamples of exact points are exact too.
        assert fit.coefficients[name].low == pytest.approx(value, rel=1e-4), name
        assert fit.coefficients[name].high == pytest.approx(value, rel=1e-4), name
    np.testing.assert_allclose(fit.residuals, 0, atol=1e-9)
    assert fit.notes == ()
    assert fit.resamples == FEW["resamples"]


@pytest.mark.parametrize(
    ("variable", "truth"),
    [
        ("N", {"E": 1.69, "A": 406.4, "alpha": 0.34}),
        ("D", {"E": 1.82, "B": 2085.0, "beta": 0.366}),
        ("N", {"A": 11.5, "alpha": 0.078}),
        ("C", {"A": 2.57, "alpha": 0.048}),
    ],
)
def test_a_power_law(variable, truth):
    x = np.geomspace(1e6, 1e10, 6)
    constant, power = list(truth.values())[-2:]
    loss = truth.get("E", 0) + constant / x**power
    recovered(laws.power_law(x, loss, variable, floor="E" in truth, **FEW), truth)


@pytest.mark.parametrize(
    "truth",
    [
        {"E": 1.69, "A": 406.4, "alpha": 0.34, "B": 410.7, "beta": 0.28},
        {"E": 1.817, "A": 482.0, "alpha": 0.348, "B": 2085.0, "beta": 0.366},
        {"E": 0.3, "A": 30.0, "alpha": 0.12, "B": 9e6, "beta": 0.9},
    ],
)
def test_the_joint_law(truth):
    N, D = N_D
    loss = truth["E"] + truth["A"] / N ** truth["alpha"] + truth["B"] / D ** truth["beta"]
    fit = laws.chinchilla(N, D, loss, **FEW)
    recovered(fit, truth)
    assert fit.held_out.error < 1e-9


def routed_loss(N, experts, a=0.0, b=0.0, c=0.0, d=0.0, E_start=1.0, E_max=2.0):
    """The formula as the paper has it, in plain words."""
    hat = 1 / (1 / (experts - 1 + (1 / E_start - 1 / E_max) ** -1) + 1 / E_max)
    return 10 ** (a * np.log10(N) + b * np.log10(hat) + c * np.log10(N) * np.log10(hat) + d)


# The published coefficients of S-BASE, RL-R and HASH.
@pytest.mark.parametrize(
    "values",
    [
        (-0.082, -0.108, 0.009, 1.104, 1.847, 314.478),
        (-0.083, -0.126, 0.012, 1.111, 1.880, 469.982),
        (-0.087, -0.136, 0.012, 1.157, 4.175, 477.741),
    ],
)
def test_the_routed_law(values):
    truth = dict(zip(("a", "b", "c", "d", "E_start", "E_max"), values, strict=True))
    N, experts = (x.ravel() for x in np.meshgrid([1.6e7, 5.7e7, 3.7e8, 1.3e9], EXPERTS))
    fit = laws.routed(N, experts, routed_loss(N, experts, **truth), **FEW)
    recovered(fit, truth)
    assert fit.held_out.error < 1e-9
    # A dense model of the effective size has the routed model's loss.
    size = laws.effective_size(N, experts, fit.values())
    np.testing.assert_allclose(
        fit.predict(N=size, experts=np.ones_like(size)), fit.predict(N=N, experts=experts)
    )
    np.testing.assert_allclose(size[experts == 1], N[experts == 1], rtol=1e-9)


def test_the_routed_law_at_one_size():
    truth = {"b": -0.0434, "d": 0.2716, "E_start": 2.6, "E_max": 58.0}
    experts = np.repeat(EXPERTS[:7], 2)
    shared = {"E_start": truth["E_start"], "E_max": truth["E_max"]}
    loss = routed_loss(1.0, experts, b=truth["b"], d=truth["d"], **shared)
    fit = laws.routed_at_one_size(experts, loss * np.tile([1, 1 + 1e-12], 7), **FEW)
    recovered(fit, truth)


def test_minima_of_parabolas():
    budgets, t = np.repeat(10.0 ** np.arange(18, 22), 7), np.tile(np.linspace(-0.4, 0.8, 7), 4)
    best = 0.09 * budgets**0.49
    made = laws.isoflops(budgets, best * 10**t, 2.2 * np.exp(0.11 * t**2), **FEW)
    assert [minimum.flops for minimum in made.minima] == pytest.approx([1e18, 1e19, 1e20, 1e21])
    for minimum, value in zip(made.minima, best[::7], strict=True):
        assert minimum.at == pytest.approx(value, rel=1e-6)
        assert minimum.low == pytest.approx(value, rel=1e-4)
        assert minimum.high == pytest.approx(value, rel=1e-4)
        assert (minimum.loss, minimum.curvature) == pytest.approx((2.2, 0.11), rel=1e-6)
    assert made.fit.values() == pytest.approx({"k": 0.09, "g": 0.49}, rel=1e-6)
    assert made.fit.predict(C=np.array([1e24])) == pytest.approx(0.09 * 1e24**0.49, rel=1e-5)
    assert made.fit.held_out.error < 1e-6


def test_parabolas_are_biased():
    """On Chinchilla's law without noise their minima lie beside those that it has."""
    E, A, alpha, B, beta = 1.69, 406.4, 0.34, 410.7, 0.28
    budgets = np.repeat(10.0 ** np.arange(18, 22), 9)
    best = (alpha * A / (beta * B)) ** (1 / (alpha + beta)) * (budgets / 6) ** (
        beta / (alpha + beta)
    )
    N = best * np.tile(np.geomspace(1 / 4, 4, 9), 4)
    made = laws.isoflops(budgets, N, E + A / N**alpha + B / (budgets / 6 / N) ** beta, **FEW)
    ratios = [minimum.at / best[9 * i] for i, minimum in enumerate(made.minima)]
    assert all(1e-3 < abs(ratio - 1) < 0.1 for ratio in ratios)
