"""Laws in a report: of runs that follow one, with what their reader needs to judge them."""

import numpy as np
import pytest

from switchx.reports import fits
from switchx.reports.fits import laws_of
from switchx.reports.groups import Group
from switchx.reports.laws import saturated
from switchx.reports.runs import Curve, RunRecord, Size

STEPS, TOKENS = 100, 1000


def run(name, loss, experts=1, N=1000, tokens=STEPS * TOKENS):
    size = Size(N * experts, N + experts, N, 6 * N * TOKENS, TOKENS)
    steps = tokens // TOKENS
    curve = Curve(np.array([1.0, steps]), np.array([loss + 1, loss]))
    return RunRecord(name, {}, experts, 0, steps, size, {}, {"validation_loss": curve}, 0.1)


def groups_of(runs):
    return [Group(run.name, (("NAME", run.name),), (run,), "validation_loss") for run in runs]


def test_the_law_of_routed_models_is_found_in_its_own_points():
    experts = np.array([1, 2, 4, 8, 16, 32, 64])
    losses = 10 ** (-0.1 * np.log10(saturated(experts, 2.0, 60.0)) + 0.8)
    runs = [run(f"{e} experts", loss, int(e)) for e, loss in zip(experts, losses, strict=True)]
    worse = run("8 badly tuned experts", losses[3] + 1, 8)
    found, left_out = laws_of(groups_of([*runs, worse]))
    (law,) = [law for law in found if law.title == "Law of routed models"]
    assert law.fit.values() == pytest.approx(
        {"b": -0.1, "d": 0.8, "E_start": 2, "E_max": 60}, rel=1e-4
    )
    whys = {one.name: one.why for one in left_out}
    assert whys["8 badly tuned experts in laws"].endswith("those of 8 experts, whose loss is lower")
    assert "too few for the law" in whys["Power laws in parameters and tokens"]
    among, residuals = law.figures
    (line,) = [series for series in among.series if series.style == "line"]
    ends = [(line.points[n].x, line.points[n].y) for n in (0, -1)]
    assert np.array(ends) == pytest.approx(np.array([(1, losses[0]), (64, losses[-1])]), rel=1e-4)
    assert sum(len(series.points) for series in residuals.series) == len(runs)
    assert max(abs(p.y) for series in residuals.series for p in series.points) < 1e-3


def test_runs_that_are_nearly_as_long_share_a_law_of_routed_models():
    experts = 2 ** np.arange(7)
    losses = 10 ** (-0.1 * np.log10(saturated(experts, 2.0, 60.0)) + 0.8)
    steps = [100_000 - 1000 * n // 6 for n in range(7)]  # routers counted in a budget
    long = [
        run(f"{e} long", loss, int(e), tokens=1000 * n)
        for e, loss, n in zip(experts, losses, steps, strict=True)
    ]
    short = [
        run(f"{e} short", loss + 1, int(e)) for e, loss in zip(experts[:3], losses[:3], strict=True)
    ]
    found, _ = laws_of(groups_of([*long, *short]))
    (law,) = [law for law in found if law.id.startswith("routed")]
    assert law.title == "Law of routed models, 9.9e+07 tokens"
    assert law.runs == tuple(one.name for one in long)
    assert law.fit.coefficients["E_max"].value == pytest.approx(60, rel=1e-3)


def test_sizes_and_lengths_give_the_joint_law_and_minima_where_there_are_budgets():
    sizes = [
        (1000 * 2**k, 1000 * 2 ** (budget - k)) for budget in (11, 13, 15) for k in range(2, 8)
    ]
    runs = [run(f"{N} {D}", 1.7 + 400 * N**-0.34 + 410 * D**-0.28, N=N, tokens=D) for N, D in sizes]
    found, left_out = laws_of(groups_of(runs))
    assert [law.id for law in found] == ["power-1", "minima"]
    expected = {"E": 1.7, "A": 400, "alpha": 0.34, "B": 410, "beta": 0.28}
    assert found[0].fit.values() == pytest.approx(expected, rel=1e-3)
    assert [one.name for one in left_out] == ["Law of routed models"]
    assert fits.plain(found[0])["points"] == [one.name for one in runs]


def test_one_run_alone_fits_nothing_and_says_so():
    found, left_out = laws_of(groups_of([run("alone", 2.0)]))
    assert found == []
    assert len([one.why for one in left_out if one.why]) == 3
