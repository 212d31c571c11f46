"""The reproduction's plan and what its report says of results."""

import json

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from reproduction import balance, plan, report
from reproduction.training import router_of

from switchx.model import NO_NOISE
from switchx.model.router import Router, expert_capacity
from tests.helpers import tiny_config


def result(name, seed, loss, **more):
    run = dict(kind="run", name=name, seed=seed, loss=loss, losses=[[10, 3.0], [20, loss]])
    measured = dict(unigram_entropy=5.0, dropped_fraction=0.01, least_load=0.1, parameters=7)
    return {**run, **measured, "compile_seconds": 1.0, "train_seconds": 2.0, **more}


def speed(name, rate):
    return dict(kind="speed", name=name, examples_per_second=rate)


@pytest.fixture
def results():
    return [
        result("dense", 0, 3.00),
        result("dense", 1, 3.02),
        result("switch 8", 0, 2.80),
        result("switch 8", 1, 2.82),
        result("switch 4", 0, 2.81),
        result("switch 2", 0, 3.20),
        result("bfloat16", 0, None),
        speed("dense", 100.0),
        speed("switch 8, CF 1.0", 80.0),
    ]


def test_every_row_of_every_table_is_a_run_with_a_valid_model():
    for variant in plan.VARIANTS.values():
        variant.config()
    for table in plan.TABLES:
        pairs = table.quality + table.speed + table.equal
        assert {name for pair in pairs for name in pair} <= set(table.rows) <= set(plan.VARIANTS)


@pytest.mark.parametrize("factor", [1.0, 1.25, 2.0])
def test_top_2_has_the_slots_that_the_paper_gives_it(factor):
    config = plan.VARIANTS[f"top-2, CF {factor}"].config().switch
    assert expert_capacity(config, 1024, train=True) == factor * 1024 / 8


def test_noise_is_the_deviation_pooled_over_variants(results):
    # Two pairs that are 0.02 apart: each has the variance 0.01**2 * 2 with one degree of freedom.
    assert report.noise(results) == pytest.approx(0.02 / 2**0.5)


def test_verdicts_compare_with_the_noise(results):
    text = report.markdown(results)
    # 0.2 apart, and two standard errors are 2 * 0.0141 * sqrt(1/2 + 1/2).
    assert "8 experts better than dense: **reproduces** (difference +0.2000" in text
    assert "8 experts better than 4 experts: not resolved" in text
    assert "2 experts better than dense: **the other way round**" in text
    assert "dense faster than Switch, capacity 1.0: **reproduces** (1.25x)" in text


def test_every_run_is_reported_diverged_ones_too(results):
    lines = [line for line in report.markdown(results).splitlines() if line.startswith("| ")]
    assert any(line.startswith("| bfloat16 | 0 | diverged |") for line in lines)
    assert sum(line.startswith("| dense | ") for line in lines) >= 2


def test_balance_is_reported_with_every_run(results):
    measured = dict(largest_load=1.5, dead=2, train_largest=1.25, train_dropped=0.125)
    assert balance.markdown(results) == ""
    results += [
        result("switch 8", 2, 2.9, **measured),
        result("quantile 1", 0, 2.6, **measured),
        result("quantile 1", 1, None, **measured),
    ]
    lines = balance.markdown(results).splitlines()
    assert "the batch one group | 2.9000 | 0.0000 | 1 | 0.125 | 1.250 | " in lines[4]
    assert "| `BALANCE_QUANTILE=1.0`, no loss | inf | inf | 2 | 0.125 | 1.250 | " in lines[5]
    assert sum(line.startswith("| quantile 1 | ") for line in lines) == 2
    for variant in balance.VARIANTS.values():
        assert variant.config().switch.num_experts == 8
    assert not balance.VARIANTS.keys() & plan.VARIANTS.keys()


def test_a_line_cut_short_is_run_again(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(result("dense", 0, 3.0)) + '\n{"kind": "ru')
    assert len(report.read(path)) == 1


def test_the_plot_is_drawn(results, tmp_path):
    report.plot(results, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_only_the_bfloat16_variant_computes_its_router_in_bfloat16():
    config = tiny_config(dtype="bfloat16")
    router = Router(config, config.switch, nnx.Rngs(params=jax.random.key(0)))
    x_GSD = jnp.ones((1, 4, config.d_model), jnp.bfloat16)
    dtypes = {}
    for name in ("selective", "bfloat16"):
        with router_of(plan.VARIANTS[name]):
            dtypes[name] = router(x_GSD, NO_NOISE).dtype
    assert dtypes == {"selective": jnp.float32, "bfloat16": jnp.bfloat16}
    assert router(x_GSD, NO_NOISE).dtype == jnp.float32  # and the package is as it was
