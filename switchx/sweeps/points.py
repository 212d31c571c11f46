"""The points of a sweep: each combination's settings, its figures and its name."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from switchx.errors import UserError
from switchx.settings import Settings
from switchx.settings.gin_values import MODEL_DIR
from switchx.settings.loading import of_bindings
from switchx.sweeps import counting, forks
from switchx.sweeps.axes import Assignment, combinations
from switchx.sweeps.folder import Fork, Point, label
from switchx.sweeps.settling import Settling
from switchx.sweeps.statement import Statement

_LONGEST = 120  # characters of a name; file systems take 255 bytes
_DIR_LINE = re.compile(rf"^{MODEL_DIR} = .*\n", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Resolved:
    """A point, and the settings that it stands for; their MODEL_DIR is not known yet."""

    point: Point
    settings: Settings

    def config_text(self, model_dir: str) -> str:
        """What `switchx train` writes to config.gin of this directory."""
        line = f"{MODEL_DIR} = {model_dir!r}\n"
        return _DIR_LINE.sub(lambda _: line, self.settings.resolved, count=1)


def resolve(statement: Statement) -> list[Resolved]:
    """Every point, in the order of the axes.

    Raises:
      UserError: for the first mistake in any of them, or where two are the same run.
    """
    found: list[tuple[Assignment, Settings]] = []
    excluding = {rule.text: False for rule in statement.exclude}
    for assigned in combinations(statement.config):
        settling = Settling(statement, assigned)
        try:
            rule = settling.excluded_by()
            if rule is not None:
                excluding[rule.text] = True
                continue
            found.append((assigned, of_bindings(settling.bindings())))
        except UserError as error:
            raise UserError(f"{error} (At {label(assigned)}.)") from error
    _check_exclusions(excluding, len(found))
    _check_flags(statement, found)
    _check_distinct(found)
    return _with_forks(statement, found)


def _with_forks(
    statement: Statement, found: Sequence[tuple[Assignment, Settings]]
) -> list[Resolved]:
    """The points; those that share their first steps with a longer one say so."""
    settings = [each for _, each in found]
    shared = forks.find(settings)
    for group in shared:
        steps = tuple(group.begins.values())
        settings[group.longest] = forks.with_saves(settings[group.longest], steps)
    made = [
        _point(statement, assigned, each)
        for (assigned, _), each in zip(found, settings, strict=True)
    ]
    for group in shared:
        for index, step in group.begins.items():
            fork = Fork(made[group.longest].name, step)
            made[index] = dataclasses.replace(made[index], fork=fork)
    return [Resolved(point, each) for point, each in zip(made, settings, strict=True)]


def digest(config_text: str) -> str:
    """What a point is known by, from the text of its config.gin."""
    return hashlib.sha256(_DIR_LINE.sub("", config_text, count=1).encode()).hexdigest()


def _point(statement: Statement, assigned: Mapping[str, Any], settings: Settings) -> Point:
    run, batch = settings.run, settings.run.batch
    lengths = (batch.input_length, batch.target_length)
    sequences = batch.batch_size * run.trainer.train_steps
    config = digest(settings.resolved)
    return Point(
        name=f"{_slug(assigned)}_{config[:8]}",
        varied=json.loads(json.dumps(assigned, default=repr)),  # as it will be read back
        config=config,
        steps=run.trainer.train_steps,
        tokens=sequences * sum(lengths),
        flops=sequences * counting.sequence_flops(run.model, *lengths, statement.config.counted),
        parameters=counting.parameters(run.model),
    )


def _slug(assigned: Mapping[str, Any]) -> str:
    parts = []
    for name, value in assigned.items():
        shown = f"{value:g}".replace("e+", "e") if isinstance(value, float) else str(value)
        shown = re.sub(r"[^A-Za-z0-9.-]+", "-", shown).strip("-")
        parts.append(f"{name.rpartition('.')[2].lower()}-{shown}")
    return "_".join(parts)[:_LONGEST]


def _check_exclusions(excluding: Mapping[str, bool], left: int) -> None:
    for text, matched in excluding.items():
        if not matched:
            raise UserError(
                f"SweepConfig.exclude has {text!r}, which leaves out no point: change it, or "
                "remove it."
            )
    if not left:
        raise UserError(
            f"SweepConfig.exclude={tuple(excluding)!r} leaves no point: exclude fewer of them."
        )


def _check_flags(statement: Statement, found: Sequence[tuple[Assignment, Settings]]) -> None:
    used = {target for _, settings in found for target in settings.gin.used()}
    for flag in statement.flags:
        if flag.target not in used | statement.free:
            raise UserError(f"{flag.origin}: no point of the sweep uses it: leave it out.")


def _check_distinct(found: Sequence[tuple[Assignment, Settings]]) -> None:
    seen: dict[str, Assignment] = {}
    for assigned, settings in found:
        first = seen.setdefault(digest(settings.resolved), assigned)
        if first is not assigned:
            raise UserError(
                f"SweepConfig.axes has two points that are the same run, {label(first)} and "
                f"{label(assigned)}: leave one out with SweepConfig.exclude."
            )
