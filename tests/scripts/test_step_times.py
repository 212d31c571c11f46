"""Public training steps: that they are what they say, and that the plan's factors are their fit."""

import numpy as np
import pytest
from fit_step_times import FACTORS, Step, compiled_parts, fit, left_out
from step_times.recipes import read

from switchx.planning import likely

RECIPES = read()


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_recipe_is_of_the_flops_that_its_log_says(recipe):
    """Shape and tokens give the published TFLOP/s, causal attention halved or, earlier, whole."""
    m = recipe.shape
    beyond = m.layers * recipe.length - m.attended(recipe.length)
    whole = recipe.model_flops + 12 * recipe.tokens * beyond * recipe.width
    counted = np.array([recipe.model_flops, whole]) / recipe.published / 1e12
    assert np.abs(recipe.tflops / counted - 1).min() < 0.015


def test_the_plans_factors_are_the_fit():
    parts = compiled_parts()
    steps = [Step.of(recipe, parts) for recipe in RECIPES]
    factors = dict(zip(FACTORS, fit(steps), strict=True))
    names = ("computation", "computation, v4", "attention's kernels", "network")
    found = [factors[name] for name in names]
    own = likely.COMPUTATION
    assert own["v5e"] == own["v5p"] == own["v6e"]
    used = [own["v5e"], own["v4"], likely.KERNELS, likely.NETWORK]
    assert used == pytest.approx(found, rel=0.01)
    errors = left_out(steps, lambda recipe: recipe.model)
    assert pytest.approx(np.quantile(np.abs(errors), 0.9), abs=0.006) == likely.ERROR
    assert np.sum(np.abs(np.expm1(errors)) <= 0.15) == 36
