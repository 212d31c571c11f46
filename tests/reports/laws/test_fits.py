"""What every fit says beside its coefficients: points left out, intervals, what it cannot tell."""

import json

import numpy as np
import pytest
from scipy.optimize import minimize

from switchx.errors import UserError
from switchx.reports import laws
from switchx.reports.laws.additive import Additive
from switchx.reports.laws.fit import resampled
from switchx.reports.laws.routed import Routed
from switchx.reports.laws.solve import huber, lowest_minima, minimise

RANDOM = np.random.default_rng(7)
N = np.geomspace(1e6, 1e9, 12)
LOSS = (1.8 + 90 / N**0.3) * np.exp(RANDOM.normal(0, 0.004, len(N)))
EXPERTS = np.repeat(2.0 ** np.arange(7), 2)


def test_a_model_and_its_slopes():
    columns = {"N": N[:5], "D": N[3:8] * 20, "experts": EXPERTS[:10:2]}
    theta = np.array([[0.4, -0.2, 0.3, 0.1, 0.5, 0.7], [0.2, 0.3, 0.1, -0.1, 0.9, 1.4]])
    for law in (Additive(("N", "D"), True), Additive(("N",), False), Routed(True), Routed(False)):
        model, at = law.design(columns).model, theta[:, : law.parameters]
        predicted, slopes = model(at)
        assert slopes.shape == (*predicted.shape, law.parameters)
        for k in range(law.parameters):
            step = 1e-6 * np.eye(law.parameters)[k]
            measured = (model(at + step)[0] - model(at - step)[0]) / 2e-6
            np.testing.assert_allclose(slopes[:, :, k], measured, rtol=1e-6, atol=1e-8)


def test_no_other_search_finds_lower():
    """Of ten simplex searches in SciPy, over Huber's loss as its textbooks have it."""

    def total(theta):
        e, a, alpha = theta
        away = np.abs(np.log(np.exp(e) + np.exp(a) / (N / 3e7) ** alpha) - np.log(LOSS))
        return np.sum(np.where(away < 1e-3, away**2 / 2, 1e-3 * (away - 5e-4)))

    starts = RANDOM.uniform([0, -2, 0.1], [1, 0, 0.6], (10, 3))
    options = {"xatol": 1e-10, "fatol": 1e-14, "maxiter": 4000, "maxfev": 4000}
    found = [minimize(total, x, method="Nelder-Mead", options=options) for x in starts]
    best = min(found, key=lambda result: result.fun)
    fit = laws.power_law(N, LOSS, resamples=10)
    assert fit.reached <= best.fun + 1e-12
    assert fit.reached == pytest.approx(best.fun, rel=1e-6)
    assert fit.coefficients["E"].value == pytest.approx(np.exp(best.x[0]), rel=1e-3)


def test_a_resample_is_the_fit_of_its_points():
    law = Additive(("N",), True)
    design, target = law.design({"N": N}), np.log(LOSS)
    times = np.array([2, 0, 1, 1, 0, 3, 1, 1, 0, 1, 2, 0])
    bounds = design.bounds(target)
    start = design.starts(target)[:1]
    theta, _ = minimise(design.model, target, start, times[None].astype(float), 1e-3, *bounds)
    drawn = np.repeat(np.arange(len(N)), times)
    alone = laws.power_law(N[drawn] * (1 + 1e-13 * np.arange(len(drawn))), LOSS[drawn], resamples=2)
    weighted = {name: value[0] for name, value in design.coefficients(theta).items()}
    assert weighted == pytest.approx(alone.values(), rel=1e-5)


def test_hubers_loss_and_minima_on_a_grid():
    np.testing.assert_allclose(huber(np.array([-3.0, 0.5, 2.0]), 1.0), [2.5, 0.125, 1.5])
    np.testing.assert_allclose(huber(np.array([-3.0, 0.5]), np.inf), [4.5, 0.125])
    grid = np.array([[2.1, 2, 5, 1], [4, 9, 9, 9], [0, 9, 9, 1.1]])
    assert lowest_minima(grid, 5).tolist() == [8, 3, 11, 1]


def test_points_that_are_left_out():
    bad_N, bad_loss = (
        np.append(N, [N[0], 1e7, np.nan, 2e7]),
        np.append(LOSS, [LOSS[0], 0, 2, np.inf]),
    )
    fit = laws.power_law(bad_N, bad_loss, drop_highest=1, resamples=20)
    highest = int(np.argmax(LOSS))
    assert [(out.point, out.why) for out in fit.left_out] == [
        (highest, "among the 1 highest losses"),
        (12, "the same in every column as point 0"),
        (13, "loss not a positive finite number"),
        (14, "N not a positive finite number"),
        (15, "loss not a positive finite number"),
    ]
    rest = np.delete(np.arange(12), highest)
    alone = laws.power_law(N[rest], LOSS[rest], resamples=20)
    assert fit.used == tuple(rest)
    assert fit.coefficients == alone.coefficients
    with pytest.raises(UserError, match="differ in length"):
        laws.power_law(N, LOSS[:-1])


@pytest.mark.parametrize(
    ("fit", "says"),
    [
        (
            lambda: laws.power_law(N[:3], LOSS[:3]),
            r"points=3 are too few for the law L = E \+ A / N",
        ),
        (
            lambda: laws.power_law(N[[0, 1, 1, 1]], LOSS[:4]),
            "N=2 are .* at least 3 different values",
        ),
        (lambda: laws.chinchilla(N, N[0] + 0 * N, LOSS), "D=1 is too few"),
        (lambda: laws.routed_at_one_size(EXPERTS[:8], LOSS[:8]), "experts=4 .* at least 5"),
        (lambda: laws.routed(N[:6], EXPERTS[:6], LOSS[:6]), "points=6 .* at least 7 points"),
        (lambda: laws.chinchilla(N, 20 * N, LOSS), "directions in which N and D vary=1 is too few"),
        (
            lambda: laws.chinchilla(N, 1e17 / N * (1 + N / 1e12), LOSS),
            "=1 .* at least 2 directions",
        ),
        (lambda: laws.isoflops(N, N, LOSS), "budgets with a minimum inside=0"),
    ],
)
def test_too_few_points_are_said(fit, says):
    with pytest.raises(laws.TooFewPointsError, match=says):
        fit()


def test_intervals_are_seeded_and_hold_the_law():
    fits = [laws.power_law(N, LOSS, seed=seed, resamples=200) for seed in (0, 0, 1)]
    assert fits[0].coefficients == fits[1].coefficients != fits[2].coefficients
    for name, truth in {"E": 1.8, "A": 90, "alpha": 0.3}.items():
        coefficient = fits[0].coefficients[name]
        assert coefficient.low < truth < coefficient.high
        assert coefficient.low <= coefficient.value <= coefficient.high
    low, high = fits[0].interval(N=N)
    assert np.all((low < fits[0].predict(N=N)) & (fits[0].predict(N=N) < high))
    np.testing.assert_allclose(np.log(LOSS / fits[0].predict(N=N)), fits[0].residuals)
    # Where the law is its floor alone its band is that of E, wider by the freedom of 12 - 3 points.
    far, E = fits[0].interval(N=np.array([1e90])), fits[0].coefficients["E"]
    wider = (12 / 9) ** 0.5
    assert far[0][0] == pytest.approx(E.value * (E.low / E.value) ** wider)
    assert far[1][0] == pytest.approx(E.value * (E.high / E.value) ** wider)


def test_resamples_determine_the_law():
    columns = {"experts": np.repeat(2.0 ** np.arange(5), 2)}
    drawn = resampled(Routed(False), columns, np.random.default_rng(0), 50)
    assert drawn.shape == (50, 10)
    assert np.all(drawn.sum(axis=1) == 10)
    assert np.all(drawn[:, ::2] + drawn[:, 1::2] > 0)  # of five values each is needed
    columns = {"N": np.repeat([1, 2, 3], 3), "D": np.tile([1, 2, 3], 3)}
    drawn = resampled(Additive(("N", "D"), True), columns, np.random.default_rng(0), 500)
    assert drawn.shape == (500, 9)
    assert (drawn > 0).sum(axis=1).min() == 5  # as many points as coefficients


def test_the_largest_are_held_out():
    fit = laws.power_law(N, LOSS, resamples=2)
    smaller = laws.power_law(N[:-1], LOSS[:-1], resamples=2)
    assert fit.held_out.points == (11,)
    away = np.log(LOSS[-1] / smaller.predict(N=N[-1:]))
    assert fit.held_out.error == pytest.approx(abs(away[0]), rel=1e-6)
    # Seeds of one size go together, and too few sizes leave none to predict from.
    twice = laws.power_law(
        np.repeat(N, 2), np.repeat(LOSS, 2) * np.tile([1, 1.001], 12), resamples=2
    )
    assert twice.held_out.points == (22, 23)
    assert laws.power_law(N[:4], LOSS[:4], resamples=2).held_out is None


def test_what_points_do_not_determine_is_said():
    straight = laws.power_law(N, 9 / N**0.08, resamples=5)
    assert straight.notes == ("no floor is seen: the best E is 0",)
    unsaturated = laws.routed_at_one_size(EXPERTS, 3 * (EXPERTS + 1) ** -0.04, resamples=5)
    assert unsaturated.notes[0].startswith("no saturation is seen")


def test_a_fit_as_json():
    fit = laws.power_law(np.append(N, N[0]), np.append(LOSS, LOSS[0]), resamples=5)
    plain = json.loads(json.dumps(fit.as_json(), allow_nan=False))
    assert plain["form"] == "L = E + A / N^alpha"
    assert plain["coefficients"]["E"] == vars(fit.coefficients["E"])
    assert plain["left_out"] == [{"point": 12, "why": "the same in every column as point 0"}]
    assert plain["held_out"]["points"] == [11]
    assert len(plain["residuals"]) == len(plain["used"]) == 12
