"""How much sooner one configuration comes to a loss than another: the paper's speed-ups."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from switchx.reports.groups import Estimate, Group, first_below
from switchx.reports.runs import LeftOut, RunRecord

LARGER = 1.1  # times the FLOPs a token: a dense model that counts as a larger one


@dataclasses.dataclass(frozen=True)
class SpeedUp:
    """What a group needs to come to the loss at which its baseline ends.

    Each of its runs is compared with the baseline's run of the same seed, or with their mean where
    there is none. Ratios are the baseline's need over the group's: 2 is half of it.

    Attributes:
      group, baseline: names.
      loss: the mean of the losses to come to.
      reached: how many of its `runs` came to it.
      baseline_steps, own_steps: means; None where not all came to it.
      steps, tokens, flops: geometric means over seeds, with their intervals; None likewise.
      time: the same, from each run's own training rate; None also where one has none.
    """

    group: str
    baseline: str
    loss: float
    reached: int
    runs: int
    baseline_steps: float
    own_steps: float | None
    steps: Estimate | None
    tokens: Estimate | None
    flops: Estimate | None
    time: Estimate | None


def over_dense(groups: Sequence[Group]) -> tuple[list[SpeedUp], list[LeftOut]]:
    """Each group over the dense one of its family, or over the one of fewest experts there."""
    found, left_out = [], []
    for family in families(groups):
        baseline, *others = family
        if others:
            found += over_first(family)
        elif len(groups) > 1:
            why = "no other number of experts has a finished run of these settings"
            left_out.append(LeftOut(f"speed-up of {baseline.name}", why))
    return found, left_out


def over_first(groups: Sequence[Group]) -> list[SpeedUp]:
    """Each group over the first of them."""
    return [speed_up(group, groups[0]) for group in groups[1:]]


def over_larger(groups: Sequence[Group]) -> list[SpeedUp]:
    """Each group with experts over the next larger dense one (figure 6)."""
    dense = sorted((g for g in groups if g.num_experts == 1), key=_flops_per_token)
    found = []
    for group in groups:
        larger = [d for d in dense if _flops_per_token(d) > LARGER * _flops_per_token(group)]
        if group.num_experts > 1 and larger:
            found.append(speed_up(group, larger[0]))
    return found


def families(groups: Sequence[Group]) -> list[list[Group]]:
    """The groups that differ in their experts alone, fewest experts first."""
    by_family: dict[tuple, list[Group]] = {}
    for group in groups:
        by_family.setdefault(group.family, []).append(group)
    return [sorted(family, key=lambda g: g.num_experts) for family in by_family.values()]


def _flops_per_token(group: Group) -> float:
    """Of the model: a student is no larger for the teacher that it learns from."""
    size = group.size
    return (size.flops_per_step - size.teacher_flops_per_step) / size.tokens_per_step


def speed_up(group: Group, baseline: Group) -> SpeedUp:
    """How much sooner a group comes to the loss at which another ends."""
    targets = [_target(baseline, run.seed) for run in group.runs]
    own = [
        first_below(run.curves[group.loss], loss)
        for run, (loss, _) in zip(group.runs, targets, strict=True)
    ]
    reached = [steps for steps in own if steps is not None]
    complete = len(reached) == len(own)
    ratios = [
        steps / mine for mine, (_, steps) in zip(own, targets, strict=True) if mine is not None
    ]

    def estimate(weights: list[float]) -> Estimate | None:
        """Of the ratios, weighted by what a step of the baseline needs over one's own."""
        if not complete:
            return None
        return Estimate.of_ratios([r * w for r, w in zip(ratios, weights, strict=True)])

    def constant(name: str) -> list[float]:
        return [getattr(baseline.size, name) / getattr(group.size, name)] * len(own)

    times = _time_weights(group, baseline)
    return SpeedUp(
        group.name,
        baseline.name,
        loss=float(np.mean([loss for loss, _ in targets])),
        reached=len(reached),
        runs=len(own),
        baseline_steps=float(np.mean([steps for _, steps in targets])),
        own_steps=float(np.mean(reached)) if complete else None,
        steps=estimate([1.0] * len(own)),
        tokens=estimate(constant("tokens_per_step")),
        flops=estimate(constant("flops_per_step")),
        time=estimate(times) if times else None,
    )


def _of_seed(group: Group, seed: int) -> Sequence[RunRecord]:
    """The run of a seed, or all of them."""
    return [run for run in group.runs if run.seed == seed] or group.runs


def _target(baseline: Group, seed: int) -> tuple[float, float]:
    """The loss to come to, and the step at which the baseline first came to it."""
    curves = [run.curves[baseline.loss] for run in _of_seed(baseline, seed)]
    loss = float(np.mean([curve.values[-1] for curve in curves]))
    steps = [first_below(curve, loss) for curve in curves]
    ends = [float(curve.steps[-1]) for curve in curves]
    return loss, float(np.mean([s or end for s, end in zip(steps, ends, strict=True)]))


def _time_weights(group: Group, baseline: Group) -> list[float]:
    """Seconds of a step of the baseline over one's own, by run; [] where one is not known."""
    weights = []
    for run in group.runs:
        theirs = [other.seconds_per_step for other in _of_seed(baseline, run.seed)]
        if run.seconds_per_step is None or None in theirs:
            return []
        weights.append(float(np.mean([t for t in theirs if t])) / run.seconds_per_step)
    return weights
