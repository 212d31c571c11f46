"""One translation as it comes about: what each use of a parameter of T5X is here."""

from typing import Any

from switchx.checks import is_number
from switchx.settings.configurables import CONFIGURABLES
from switchx.settings.gin_syntax import (
    REQUIRED,
    Binding,
    Macro,
    Reference,
    leaves,
    near,
)
from switchx.settings.t5x.config import Config, Use
from switchx.settings.t5x.names import SHORT_NAMES, short_name, why_none
from switchx.settings.t5x.rows import DiffersError
from switchx.settings.t5x.table import NAMES, TABLE

BY_T5X = "T5X's default"
_SAYS_IT = "--gin.{}=... says what is to be trained here"


class Reading:
    """One translation as it comes about; the functions of `rules` add to it."""

    def __init__(self, config: Config, uses: list[Use], decided: set[str]) -> None:
        self.uses = uses
        self.config = config
        self.decided = decided  # targets that the caller sets himself, in our words
        self.chosen: dict[str, Binding] = {}
        self.notes: list[str] = []
        self.refusals: list[str] = []

    def use(self, name: str, within: str | None = None) -> Use | None:
        """The use of a parameter by the end of its name, as DatasetConfig.seed.

        Args:
          within: a parameter that must have led to its configurable.
        """
        found = self.all_uses(name, within)
        return found[0] if found else None

    def all_uses(self, name: str, within: str | None = None) -> list[Use]:
        return [
            use
            for use in self.uses
            if f"{use.name}.{use.parameter}".endswith(name)
            and (within is None or within in use.path)
        ]

    def value(self, name: str, within: str | None = None) -> Any:
        """The value of such a use; None without one, or where it is left to the user."""
        found = self.use(name, within)
        return None if found is None or found.value == REQUIRED else found.value

    def built(self, name: str, within: str | None = None) -> bool:
        """Whether a configurable is used at all."""
        return any(
            use.parameter == "@"
            and use.name.endswith(name)
            and (within is None or within in use.path)
            for use in self.uses
        )

    def put(self, target: str, value: Any, use: Use | None) -> None:
        """Sets one of our macros or parameters to what a use comes to."""
        if any(isinstance(p, Reference) and p.name not in CONFIGURABLES for p in leaves(value)):
            self.refuse(use, f"{target} is a plain value here", target)
            return
        origin = use.binding.origin if use and use.binding else BY_T5X
        file = use.binding.file if use and use.binding else BY_T5X
        before = self.chosen.get(target)
        if before is not None and before.value != value and target not in self.decided:
            self.refuse(
                use,
                f"{target} would be {value!r}, and {before.value!r} by {before.origin}: here both "
                "are one setting",
            )
        elif before is None or use is not None:
            self.chosen[target] = Binding(target, value, origin, file)

    def refuse(self, use: Use | None, why: str, ours: str | None = None) -> None:
        """Refuses a setting, unless the caller has set `ours` himself."""
        if ours in self.decided:
            return
        if ours is not None and f"--gin.{ours}=" not in why:
            why = f"{why}; {_SAYS_IT.format(ours)}"
        self.refusals.append(_said(use, why))

    def note(self, use: Use | None, why: str) -> None:
        self.notes.append(_said(use, why))


def are_numbers(*values: Any) -> bool:
    """Whether it can be computed with them: what a file says may be anything."""
    return all(map(is_number, values))


def shown(use: Use) -> str:
    """A use as a setting: train/utils.DatasetConfig.pack=True."""
    scope = f"{use.binding.scope}/" if use.binding and use.binding.scope else ""
    return f"{scope}{short_name(use.name)}.{use.parameter}={use.value!r}"


def _said(use: Use | None, why: str) -> str:
    if use is None:
        return f"{why}."
    where = use.binding.origin if use.binding else BY_T5X
    said = repr(use.value) if use.parameter == "@" else shown(use)
    return f"{where}: {said}: {why}."


def read(reading: Reading, use: Use) -> None:
    """Does with one use what its row says."""
    if use.parameter == "@":
        _read_object(reading, use)
        return
    row, value = use.row, use.value
    if row is None or _is_unset(reading, use):
        return
    if row.ours is not None and not row.refused:
        _put_same(reading, use)
    elif row.why is not None and not _accepted(value, row.accepted):
        if use.binding is None:
            return
        if row.refused:
            reading.refuse(use, row.why, row.ours)
        else:
            reading.note(use, row.why)


def _put_same(reading: Reading, use: Use) -> None:
    row, value = use.row, use.value
    assert row is not None
    assert row.ours is not None
    if value == REQUIRED:
        if row.ours != "MODEL_DIR":  # there is a default
            reading.put(row.ours, REQUIRED, use)
        return
    try:
        reading.put(row.ours, row.of(value) if row.of else value, use)
    except DiffersError as why:
        reading.refuse(use, str(why), row.ours)
    except TypeError:  # of a value that nobody would write
        reading.refuse(use, f"{row.ours} takes no such value", row.ours)


def _is_unset(reading: Reading, use: Use) -> bool:
    """Refuses a value with a macro that nothing sets."""
    for part in leaves(use.value):
        if isinstance(part, Macro) and part != REQUIRED:
            reading.refuse(use, f"{part!r} is not set: set {part.name}")
            return True
    return False


def _accepted(value: Any, accepted: tuple) -> bool:
    if isinstance(value, Reference):
        return any(isinstance(a, Reference) and a.name == value.name for a in accepted)
    return any(type(a) is type(value) and a == value for a in accepted) or (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and any(not isinstance(a, bool | Reference) and a == value for a in accepted)
    )


def _read_object(reading: Reading, use: Use) -> None:
    why = why_none(use.name)
    if why is not None:
        holder = _holder(reading, use)
        reading.refuse(holder, f"this is {why}")
        return
    named = {name for name, _, _ in reading.config.parameters}
    if use.name not in NAMES and use.name not in named:
        holder = _holder(reading, use)
        advice = near(use.name, SHORT_NAMES)
        reading.refuse(holder, f"there is no {use.name!r} here{advice}")
        return
    for target, value in TABLE.get(use.name, {}).get("@", {}).items():
        reading.put(target, value, _holder(reading, use))


def _holder(reading: Reading, use: Use) -> Use:
    """The parameter that refers to an object."""
    for other in reading.uses:
        if (*other.path, other.parameter) == use.path and use.value in leaves(other.value):
            return other
    return use
