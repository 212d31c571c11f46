"""The combinations that a sweep's axes make: crossed, or along with each other."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from switchx.errors import UserError
from switchx.settings.sweep_config import SweepConfig

Assignment = Mapping[str, Any]  # from each axis, in the order of the file, to its value


def combinations(config: SweepConfig) -> list[Assignment]:
    """Every combination, the last axis varying fastest.

    Raises:
      UserError: a group of `zipped` names what is no axis, an axis twice, or unequal lists.
    """
    axes = config.axes or {}
    group_of = _groups(config)
    groups: dict[Any, list[str]] = {}
    for name in axes:
        groups.setdefault(group_of.get(name, name), []).append(name)
    steps = [
        [
            dict(zip(names, values, strict=True))
            for values in zip(*(axes[name] for name in names), strict=True)
        ]
        for names in groups.values()
    ]
    crossed = (
        {k: v for part in parts for k, v in part.items()} for parts in itertools.product(*steps)
    )
    return [{name: found[name] for name in axes} for found in crossed]


def _groups(config: SweepConfig) -> dict[str, tuple[str, ...]]:
    """The group of each axis that is in one."""
    axes, found = config.axes or {}, {}
    for group in config.zipped:
        if not isinstance(group, list | tuple) or len(group) < 2:
            raise UserError(
                f"SweepConfig.zipped has {group!r}, which is no group: write two axes or more, as "
                "in [('MESH_EXPERT', 'BATCH_SIZE')]."
            )
        for name in group:
            if name not in axes:
                raise UserError(
                    f"SweepConfig.zipped has {name!r}, which is no axis: give SweepConfig.axes its "
                    "list."
                )
            if name in found:
                raise UserError(
                    f"SweepConfig.zipped has {name!r} twice: an axis goes along in one group."
                )
            found[name] = tuple(group)
        _check_equal(group, axes)
    return found


def _check_equal(group: Sequence[str], axes: Mapping[str, Sequence[Any]]) -> None:
    lengths = {name: len(axes[name]) for name in group}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise UserError(
            f"SweepConfig.zipped={tuple(group)!r} needs as many values of each axis: {said}."
        )
