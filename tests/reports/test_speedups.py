"""Speed-ups and intervals against closed forms."""

import math

import numpy as np
import pytest

from switchx.reports.groups import Estimate, Group, first_below, grouped
from switchx.reports.runs import Curve, RunRecord, Size
from switchx.reports.speedups import over_dense, over_larger, speed_up


def run(name, experts=1, seed=0, speed=1.0, seconds=0.1, size=None, steps=1000, floor=0.0):
    """A loss of floor + 8 - log(speed step), measured at every step."""
    at = np.arange(1.0, steps + 1)
    curve = Curve(at, floor + 8 - np.log(speed * at))
    size = size or Size(1000 * experts, 1000, 1000, 6000, 10)
    return RunRecord(name, {}, experts, seed, steps, size, {}, {"validation_loss": curve}, seconds)


def group(*runs, family=()):
    name = runs[0].name
    return Group(name, family, runs, "validation_loss")


def test_a_speed_up_is_the_ratio_of_steps_to_equal_loss():
    dense = group(run("dense"))
    sparse = group(run("8", 8, speed=2.0, seconds=0.15, size=Size(8000, 1000, 1000, 9000, 20)))
    found = speed_up(sparse, dense)
    assert (found.baseline_steps, found.own_steps) == (1000, pytest.approx(500, abs=1e-6))
    assert found.steps.mean == pytest.approx(2)
    assert found.tokens.mean == pytest.approx(1)  # twice the tokens a step
    assert found.flops.mean == pytest.approx(2 * 6000 / 9000)
    assert found.time.mean == pytest.approx(2 * 0.1 / 0.15)
    assert found.steps.low is None  # one seed says nothing of others


def test_seeds_are_compared_with_their_own_baseline():
    """What a seed brings to both cancels; with the mean of the baselines it would not."""
    dense = group(run("d0"), run("d1", seed=1, speed=1.5))
    sparse = group(run("s0", 8, speed=3.0), run("s1", 8, seed=1, speed=4.5))
    found = speed_up(sparse, dense)
    assert found.steps.mean == pytest.approx(3, rel=1e-4)
    assert found.steps.high - found.steps.low < 0.01


def test_an_interval_is_students_of_the_logarithms():
    speeds = [2.0, 2.5, 3.2]
    sparse = group(*(run(f"s{n}", 8, seed=n, speed=speed) for n, speed in enumerate(speeds)))
    found = speed_up(sparse, group(run("dense"))).steps
    logs = np.log(speeds)
    half = 4.302652729911275 * logs.std(ddof=1) / math.sqrt(3)  # t of 2 degrees at 0.975
    assert found.mean == pytest.approx(math.exp(logs.mean()), rel=1e-4)
    assert found.low == pytest.approx(math.exp(logs.mean() - half), rel=1e-3)
    assert found.high == pytest.approx(math.exp(logs.mean() + half), rel=1e-3)
    assert Estimate.of([1.0]).low is None


def test_what_is_not_reached_has_no_number():
    slow = group(run("s0", 8, speed=2.0), run("s1", 8, seed=1, speed=0.5))
    found = speed_up(slow, group(run("dense")))
    assert (found.reached, found.runs) == (1, 2)
    assert found.own_steps is found.steps is found.tokens is found.flops is found.time is None


def test_a_baseline_is_dense_in_its_own_family_and_larger_beyond_it():
    large = Size(5000, 5000, 5000, 30000, 10)
    student = Size(1000, 1000, 1000, 9000, 10, teacher_flops_per_step=3000)
    groups = [
        group(run("small dense"), family=(("d", 1),)),
        group(run("small 8", 8, speed=2), family=(("d", 1),)),
        group(run("large dense", speed=1.5, size=large), family=(("d", 2),)),
    ]
    found, left_out = over_dense(groups)
    assert [(s.group, s.baseline) for s in found] == [("small 8", "small dense")]
    assert [one.name for one in left_out] == ["speed-up of large dense"]
    (larger,) = over_larger([group(run("student", size=student)), *groups])
    assert (larger.group, larger.baseline) == ("small 8", "large dense")
    assert larger.steps.mean == pytest.approx(2 / 1.5, rel=1e-4)
    assert larger.flops.mean == pytest.approx(5 * 2 / 1.5, rel=1e-4)


def test_axes_that_follow_the_experts_set_no_groups_apart():
    """As a mesh that is zipped with them; a width that is crossed with them does."""
    varied = {}
    for experts, mesh in ((1, 1), (8, 8), (64, 8)):
        for width in (1, 2):
            settings = {"NUM_EXPERTS": experts, "MESH_EXPERT": mesh, "A.d_model": width}
            varied.update({f"{experts} {width} {s}": settings | {"SEED": s} for s in (0, 1)})
    runs = [run(name, v["NUM_EXPERTS"], v["SEED"]) for name, v in varied.items()]
    groups = grouped(runs, varied)
    assert [(g.name, len(g.runs)) for g in groups] == [
        (f"d_model={width}, {experts}", 2)
        for width in (1, 2)
        for experts in ("dense", "8 experts", "64 experts")
    ]
    assert [(s.group, s.baseline) for s in over_dense(groups)[0]] == [
        (f"d_model={width}, {experts} experts", f"d_model={width}, dense")
        for width in (1, 2)
        for experts in (8, 64)
    ]


def test_a_loss_is_come_to_once_and_on_a_line_between_rows():
    curve = Curve(np.array([10.0, 20, 30, 40]), np.array([5.0, 3, 4, 2]))
    assert first_below(curve, 4.0) == 15
    assert first_below(curve, 3.0) == 20
    assert first_below(curve, 2.5) == 37.5
    assert first_below(curve, 9.0) == 10
    assert first_below(curve, 1.9) is None
