"""Which points share their first steps: under 'wsd', runs that differ in their length alone.

Before the decay no step depends on TRAIN_STEPS, so the longest run passes the state in which each
shorter one begins to decay. It saves there, and the shorter ones go on from that.
"""

import dataclasses
from collections.abc import Sequence

from switchx.settings import Binding, Settings
from switchx.settings.loading import of_bindings

_SAVED = "CHECKPOINT_STEPS"


@dataclasses.dataclass(frozen=True)
class Shared:
    """The longest of some runs, and from which of its steps each other one begins, by index."""

    longest: int
    begins: dict[int, int]


def find(settings: Sequence[Settings]) -> list[Shared]:
    """The groups of two runs or more of which all but the lengths are equal."""
    groups: dict[str, list[int]] = {}
    for index, each in enumerate(settings):
        if each.run.optimizer.schedule == "wsd":
            groups.setdefault(_but_for_length(each), []).append(index)
    return [_shared(settings, group) for group in groups.values() if len(group) > 1]


def with_saves(settings: Settings, steps: Sequence[int]) -> Settings:
    """The same run, which also saves and keeps these steps."""
    own = settings.run.trainer.checkpoint_steps
    asked = tuple(sorted({*own, *steps}))
    binding = Binding(_SAVED, asked, "the points that begin there", file="the sweep")
    return of_bindings([*settings.gin.bindings.values(), binding])


def _but_for_length(settings: Settings) -> str:
    values = dataclasses.asdict(settings.run)
    del values["trainer"]["train_steps"]
    return repr((values, settings.data))


def _shared(settings: Sequence[Settings], group: Sequence[int]) -> Shared:
    steps = {index: settings[index].run.trainer.train_steps for index in group}
    longest = max(group, key=lambda index: steps[index])
    start = settings[longest].run.optimizer.decay_start
    begins = {index: start(steps[index]) for index in group if index != longest}
    return Shared(longest, {index: step for index, step in begins.items() if step > 0})
