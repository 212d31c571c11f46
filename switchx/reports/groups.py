"""Runs that are alike but for their seed, and what is said of them together."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from switchx.reports.runs import Curve, RunRecord, Size

EXPERTS, SEED = "NUM_EXPERTS", "SEED"


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over seeds, with the ends of its 95 % interval by Student's t; None of one seed."""

    mean: float
    low: float | None
    high: float | None
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        """Of one value a seed."""
        count, mean = len(values), float(np.mean(values))
        if count < 2:
            return cls(mean, None, None, count)
        from scipy.special import stdtrit

        half = float(stdtrit(count - 1, 0.975)) * float(np.std(values, ddof=1)) / math.sqrt(count)
        return cls(mean, mean - half, mean + half, count)

    @classmethod
    def of_ratios(cls, values: Sequence[float]) -> "Estimate":
        """The same of logarithms, so that the mean is the geometric one."""
        logs = cls.of([math.log(value) for value in values])
        low, high = (None if end is None else math.exp(end) for end in (logs.low, logs.high))
        return cls(math.exp(logs.mean), low, high, logs.seeds)


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Runs that are alike but for their seed.

    Attributes:
      name: of all of them: what sets them apart from other groups.
      family: what they have in common with the groups that differ in their experts alone.
      runs: in the order of their seeds.
      loss: the name of the curve whose end is their loss.
    """

    name: str
    family: tuple[tuple[str, Any], ...]
    runs: tuple[RunRecord, ...]
    loss: str

    @property
    def num_experts(self) -> int:
        return self.runs[0].num_experts

    @property
    def size(self) -> Size:
        return self.runs[0].size

    def final_losses(self) -> list[float]:
        """One of each run."""
        return [float(run.curves[self.loss].values[-1]) for run in self.runs]


def loss_name(runs: Sequence[RunRecord]) -> str:
    """The curve that all runs have: of held-out text, or of training batches where one has none."""
    held_out = all("validation_loss" in run.curves for run in runs)
    return "validation_loss" if held_out else "train_loss"


def grouped(runs: Sequence[RunRecord], varied: Mapping[str, Mapping[str, Any]]) -> list[Group]:
    """Groups in the order of their family and their experts.

    Args:
      varied: by the name of a run, the settings that set it apart from others.
    """
    loss = loss_name(runs)
    members: dict[tuple, list[RunRecord]] = {}
    with_experts = _following_experts(runs, varied)
    for run in runs:
        own = {n: v for n, v in varied[run.name].items() if n not in with_experts}
        members.setdefault((_family(own), run.num_experts), []).append(run)
    many_experts = len({experts for _, experts in members}) > 1
    groups = [
        Group(
            _name(family, experts, many_experts),
            family,
            tuple(sorted(group, key=lambda run: (run.seed, run.name))),
            loss,
        )
        for (family, experts), group in members.items()
    ]
    return sorted(groups, key=lambda group: (_order(group.family), group.num_experts))


def _following_experts(
    runs: Sequence[RunRecord], varied: Mapping[str, Mapping[str, Any]]
) -> set[str]:
    """Settings that the number of experts decides, as a mesh that was zipped with it."""
    found = set()
    for name in {name for run in runs for name in varied[run.name]}:
        by_experts: dict[int, set] = {}
        for run in runs:
            by_experts.setdefault(run.num_experts, set()).add(_plain(varied[run.name].get(name)))
        values = set().union(*by_experts.values())
        if len(values) > 1 and all(len(of_one) == 1 for of_one in by_experts.values()):
            found.add(name)
    return found


def _family(varied: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    kept = {name: value for name, value in varied.items() if name not in (EXPERTS, SEED)}
    return tuple((name, _plain(value)) for name, value in kept.items())


def _plain(value: Any) -> Any:
    """A value that can be compared and shown: of a file its stem."""
    if isinstance(value, str):
        return PurePosixPath(value).stem if value.endswith(".gin") else value
    return value if isinstance(value, int | float | None) else repr(value)


def _order(family: tuple[tuple[str, Any], ...]) -> list[tuple]:
    """Numbers by their size, before words."""
    return [
        (0, value, "") if isinstance(value, int | float) else (1, 0, str(value))
        for _, value in family
    ]


def _name(family: tuple[tuple[str, Any], ...], experts: int, many_experts: bool) -> str:
    parts = [in_words(family)] if family else []
    if many_experts or not parts:
        parts.append(experts_in_words(experts))
    return ", ".join(parts)


def in_words(settings: Iterable[tuple[str, Any]]) -> str:
    """As "d_model=64, LEARNING_RATE=0.1": of a parameter its own name."""
    return ", ".join(f"{name.rpartition('.')[2]}={value}" for name, value in settings)


def experts_in_words(experts: int) -> str:
    """As "dense", "8 experts"."""
    return "dense" if experts == 1 else f"{experts:,} experts"


def first_below(curve: Curve, loss: float) -> float | None:
    """The step at which a curve first comes down to a loss, between two measurements by a line."""
    below = np.flatnonzero(curve.values <= loss)
    if not len(below):
        return None
    at = below[0]
    if at == 0:
        return float(curve.steps[0])
    (x0, x1), (y0, y1) = curve.steps[at - 1 : at + 1], curve.values[at - 1 : at + 1]
    return float(x0 + (x1 - x0) * (y0 - loss) / (y0 - y1))
