"""What sets some runs apart: their settings, as a user would set them, and their losses."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from switchx.reports.groups import SEED, Group, loss_name
from switchx.reports.runs import RunRecord
from switchx.settings.configurables import CONFIGURABLES

NO_EXPERTS = "dense"
OTHERS_OF_EXPERTS = "other settings of experts"
_EXPERTS, _SWITCH = "NUM_EXPERTS", "ModelConfig.switch"
_SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)  # of the steps that all runs have


@dataclasses.dataclass(frozen=True)
class Difference:
    """A setting that is not the same in all runs, and how each has it, in their order."""

    name: str
    values: tuple[str, ...]


def compared(runs: Sequence[RunRecord]) -> list[Group]:
    """Groups for a comparison, in the order of the runs: of two runs each is one of its own.

    More are put together where they differ in their seed alone, under the first one's name.
    """
    loss = loss_name(runs)
    members: list[list[RunRecord]] = []
    for run in runs:
        alike = [group for group in members if len(runs) > 2 and _alike(group[0], run)]
        if alike:
            alike[0].append(run)
        else:
            members.append([run])
    return [Group(g[0].name, (("run", g[0].name),), tuple(g), loss) for g in members]


def _alike(one: RunRecord, other: RunRecord) -> bool:
    return {d.name for d in settings_that_differ([one, other])} <= {SEED}


def settings_that_differ(runs: Sequence[RunRecord]) -> list[Difference]:
    """One of each setting, by name; those of experts alone are one where a run is dense."""
    values = [run.settings for run in runs]
    any_dense = any(run.num_experts == 1 for run in runs)
    of_experts: dict[str, None] = {}
    found = []
    for name in sorted({name for settings in values for name in settings}):
        shown = [_value(name, settings) for settings in values]
        if all(value == shown[0] for value in shown) or name == _SWITCH:
            continue
        if any_dense and name != _EXPERTS and any(_is_of_experts(name, s) for s in values):
            of_experts[name] = None
        else:
            texts = (_shown(name, settings) for settings in values)
            found.append(Difference(name, tuple(texts)))
    if of_experts:
        texts = (", ".join(f"{n}={s[n]!r}" for n in of_experts if n in s) for s in values)
        found.append(Difference(OTHERS_OF_EXPERTS, tuple(text or "none" for text in texts)))
    return found


def _is_of_experts(name: str, settings: Mapping[str, Any]) -> bool:
    """Whether a dense run lacks a setting since it has no experts."""
    return settings.get(_SWITCH) is None and name not in settings and not _has_default(name)


def _has_default(name: str) -> bool:
    cls, _, field = name.partition(".")
    return bool(field) and cls != "SwitchConfig" and hasattr(CONFIGURABLES.get(cls), field)


def _value(name: str, settings: Mapping[str, Any]) -> Any:
    """Of a setting; the default of a parameter that is not set."""
    cls, _, field = name.partition(".")
    default = getattr(CONFIGURABLES.get(cls), field, None) if field else None
    return settings.get(name, default)


def _shown(name: str, settings: Mapping[str, Any]) -> str:
    if name == _EXPERTS and settings.get(_SWITCH) is None:
        return NO_EXPERTS
    value = _value(name, settings)
    return "not set" if value is None and name not in settings else repr(value)


def losses_at_equal_steps(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """The mean loss of each group at shares of the steps that all have, between rows by lines."""
    curves = [[run.curves[group.loss] for run in group.runs] for group in groups]
    last = min(curve.steps[-1] for group in curves for curve in group)
    first = max(curve.steps[0] for group in curves for curve in group)
    steps = dict.fromkeys(round(share * last) for share in _SHARES if share * last >= first)
    return [
        {
            "step": step,
            "losses": [
                float(np.mean([np.interp(step, c.steps, c.values) for c in group]))
                for group in curves
            ],
        }
        for step in steps
    ]
