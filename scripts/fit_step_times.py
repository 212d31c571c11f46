#!/usr/bin/env python
"""Fits the likely time of a training step to published steps on TPUs, and tests it on others.

    python scripts/fit_step_times.py --compile     # parts of the recipes' layers: 20 minutes of CPU
    python scripts/fit_step_times.py               # the fit, and every recipe without its own model

Compiled parts stay in scripts/step_times/parts.jsonl; finished ones are not compiled again. The
factors stand in switchx/planning/likely.py.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
from scipy.optimize import least_squares
from step_times.recipes import HERE, Part, Recipe, read

from switchx.planning.chips import CHIPS

PARTS = HERE / "parts.jsonl"
# What is fitted: of the compiler's cycles, on v4 by itself; of attention's kernels and of experts
# that drop no token, beside that; of the network.
FACTORS = ("computation", "computation, v4", "attention's kernels", "dropless experts", "network")


@dataclasses.dataclass(frozen=True)
class Step:
    """What a recipe's step takes, in seconds.

    Attributes:
      computed: by the compiler's cycles, and the optimizer's state through memory.
      kernels: attention's products at the chip's peak.
      experts: as `computed`, of experts that drop no token.
      network: at least.
    """

    recipe: Recipe
    computed: float
    kernels: float
    experts: float
    network: float

    @classmethod
    def of(cls, recipe: Recipe, parts: dict[Part, float]) -> "Step":
        times = {"experts": 0.0, "": recipe.state_seconds}
        for number, part in recipe.parts():
            dropless = part.kind == "experts" and not recipe.capacity
            times["experts" if dropless else ""] += number * parts[part]
        peak = recipe.chip.peak_flops("bfloat16")
        network = recipe.network_seconds()
        return cls(recipe, times[""], recipe.kernel_flops / peak, times["experts"], network)

    def seconds(self, factors: np.ndarray) -> float:
        computation, on_v4, kernels, experts, network = factors
        computation = on_v4 if self.recipe.chip.name == "v4" else computation
        computed = self.computed + kernels * self.kernels + experts * self.experts
        return float(computation * computed + network * self.network)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--compile", action="store_true", help="what parts.jsonl lacks")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop compiling after")
    args = parser.parse_args()
    recipes = read()
    if args.compile:
        compile_parts(recipes, time.monotonic() + args.seconds)
    else:
        parts = compiled_parts()
        print(report([Step.of(recipe, parts) for recipe in recipes]))


def fit(steps: list[Step]) -> np.ndarray:
    """The factors with the least squares of log(predicted / published), outliers weighing less."""

    def errors(factors: np.ndarray) -> list[float]:
        return [error(step, factors) for step in steps]

    start = np.array([1.0, 1.0, 3.0, 1.0, 1.0])
    found = least_squares(errors, start, bounds=(0, np.inf), loss="soft_l1", f_scale=0.1).x
    if not any(step.recipe.chip.name == "v4" for step in steps):
        found[1] = found[0]
    return found


def error(step: Step, factors: np.ndarray) -> float:
    return float(np.log(step.seconds(factors) / step.recipe.published))


def left_out(steps: list[Step], of: Callable[[Recipe], str]) -> np.ndarray:
    """Errors of every recipe by a fit without those that have its `of`, as its model.

    NaN where the rest cannot say what it needs: none has experts that drop no token.
    """
    errors = np.full(len(steps), np.nan)
    for name in {of(step.recipe) for step in steps}:
        rest = [step for step in steps if of(step.recipe) != name]
        factors, known = fit(rest), any(step.experts for step in rest)
        for i, step in enumerate(steps):
            if of(step.recipe) == name and (known or not step.experts):
                errors[i] = error(step, factors)
    return errors


def report(steps: list[Step]) -> str:
    factors = fit(steps)
    by_model = np.expm1(left_out(steps, lambda recipe: recipe.model))
    by_chip = np.expm1(left_out(steps, lambda recipe: recipe.chip.name))
    lines = [f"{name:<20}{value:6.3f}" for name, value in zip(FACTORS, factors, strict=True)]
    lines += [
        f"nine of ten within  {np.quantile(np.abs(np.log1p(by_model)), 0.9):6.3f} of the logarithm",
        f"within 15 % without its model: {within(by_model)}, without its chip: {within(by_chip)}",
        "",
        "| step | utilisation | published, s | predicted without its model | | without its chip |",
        "|---|---|---|---|---|---|",
    ]
    for step, model, chip in zip(steps, by_model, by_chip, strict=True):
        recipe = step.recipe
        used = recipe.model_flops / recipe.published / recipe.chip.peak_flops("bfloat16")
        lines.append(
            f"| {recipe.name} | {used:.0%} | {recipe.published:.2f} | "
            f"{recipe.published * (1 + model):.2f} | {model:+.0%} | "
            f"{'' if np.isnan(chip) else f'{chip:+.0%}'} |"
        )
    return "\n".join(lines)


def within(apart: np.ndarray) -> str:
    return f"{np.sum(np.abs(apart) <= 0.15)} of {np.sum(~np.isnan(apart))}"


def compiled_parts() -> dict[Part, float]:
    """Seconds of each, by the compiler's cycles."""
    if not PARTS.exists():
        return {}
    found = {}
    for line in PARTS.read_text().splitlines():
        record = json.loads(line)
        lists = {name: tuple(record.pop(name)) for name in ("sizes", "saved")}
        seconds = record.pop("seconds")
        found[Part(**record, **lists)] = seconds
    return found


def compile_parts(recipes: list[Recipe], until: float) -> None:
    from step_times.layers import compiled

    done = compiled_parts()
    wanted = Counter(part for recipe in recipes for _, part in recipe.parts())
    for part, _ in wanted.most_common():
        if part in done:
            continue
        if time.monotonic() > until:
            sys.exit(3)
        seconds = compiled(part).total / CHIPS[part.chip].clock
        with PARTS.open("a") as file:
            file.write(json.dumps(dataclasses.asdict(part) | {"seconds": seconds}) + "\n")
        print(part, f"{1000 * seconds:.1f} ms", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
