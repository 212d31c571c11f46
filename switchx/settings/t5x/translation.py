"""From T5X's settings to ours: everything that they say is used, noted or refused, all at once."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from switchx.errors import UserError
from switchx.settings.configurables import CONFIGURABLES, PARAMETERS
from switchx.settings.gin_syntax import (
    REQUIRED,
    Binding,
    Import,
    Macro,
    Part,
    Reference,
    Wrong,
    leaves,
    near,
)
from switchx.settings.t5x import model_rules, run_rules
from switchx.settings.t5x.config import Config
from switchx.settings.t5x.files import KNOWN
from switchx.settings.t5x.names import SHORT_NAMES, aliases_of, full_name, short_name, why_none
from switchx.settings.t5x.no_equal import LIBRARIES, SCRIPTS
from switchx.settings.t5x.reading import BY_T5X, Reading, read
from switchx.settings.t5x.table import NAMES, parameters_of

_THEIR_FOLDERS = ("t5x/", "flaxformer/")


@dataclasses.dataclass(frozen=True)
class Translation:
    """What T5X's settings are here.

    Attributes:
      bindings: our settings in the order of their reading, the caller's flags among them, each
        with the place of the one that it comes from.
      notes: what has no equal and does not change what is trained, a line each.
    """

    bindings: list[Binding]
    notes: list[str]


def is_t5x(parts: Sequence[Part]) -> bool:
    """Whether any of it is said in T5X's words."""
    aliases = aliases_of(parts)
    return any(isinstance(part, Import) or _is_theirs(part, aliases) for part in parts)


def _is_theirs(part: Part, aliases: dict[str, str]) -> bool:
    if not isinstance(part, Binding):
        return False
    name = part.target.rpartition(".")[0]
    names = [leaf.name for leaf in leaves(part.value) if isinstance(leaf, Reference)]
    found = [full_name(each, aliases) for each in (name, *names) if each]
    return bool(part.scope) or any(each in NAMES or why_none(each) for each in found)


def translate(
    parts: Sequence[Part], flags: Sequence[Binding], base: Sequence[Binding]
) -> Translation:
    """What files of T5X and the caller's flags come to.

    Args:
      base: what configs/base.gin sets.

    Raises:
      UserError: what would change what is trained and has no equal, all of it.
    """
    ours = [part for part in parts if isinstance(part, Binding) and _is_ours(part)]
    theirs = [part for part in parts if not _is_ours(part)]
    asked, left = _flags(theirs, flags)
    known = {b.target for b in base if b.is_macro} | _named_macros([*ours, *left])
    config = Config.of([*theirs, *asked])
    _refuse_scripts(config)
    uses = config.uses()
    free, unused = _without_part(config, known)
    given = [*[b for b in free if b.file], *ours, *[b for b in free if b.file is None], *left]
    reading = Reading(config, uses, {binding.target for binding in given})
    reading.refusals += [part.sentence for part in parts if isinstance(part, Wrong)]
    _check_names(reading, parts)
    for use in uses:
        read(reading, use)
    _modules(reading, theirs)
    run_rules.apply(reading)
    model_rules.apply(reading)
    _say_unused(reading, unused, sorted({*known, *_named_macros(theirs)}))
    if reading.refusals:
        raise UserError(_refusal(list(dict.fromkeys(reading.refusals))))
    chosen = [b for b in reading.chosen.values() if not _goes_without_saying(b, base)]
    return Translation([*chosen, *given], list(dict.fromkeys(reading.notes)))


def _goes_without_saying(binding: Binding, base: Sequence[Binding]) -> bool:
    """What T5X takes where nobody says anything, and switchx too."""
    if binding.origin != BY_T5X:
        return False
    there = {b.target: b.value for b in base}
    if binding.is_macro:
        return there.get(binding.target, REQUIRED) == binding.value
    cls, _, field = binding.target.partition(".")
    return getattr(CONFIGURABLES[cls], field, REQUIRED) == binding.value


def _flags(theirs: Sequence[Part], flags: Sequence[Binding]) -> tuple[list[Binding], list[Binding]]:
    """Those that set something of T5X's files, and those that are ours."""
    aliases = aliases_of(theirs)
    macros = {part.target for part in theirs if isinstance(part, Binding) and _is_macro(part)}
    macros |= _named_macros(theirs)
    asked: list[Binding] = []
    left: list[Binding] = []
    for flag in flags:
        own = flag.target in macros if _is_macro(flag) else _is_theirs(flag, aliases)
        (asked if own else left).append(flag)
    return asked, left


def _without_part(
    config: Config, known: set[str]
) -> tuple[list[Binding], list[tuple[str, Binding]]]:
    """Macros of ours that have no part in T5X's run, and what else it would have passed over."""
    free, unused = list(config.spare), []
    for name, binding in config.macros.items():
        if config.has_part(binding):
            continue
        if name in known and not _has_object(binding.value):
            free.append(binding)
        else:
            unused.append((name, binding))
    for (name, parameter, _), binding in config.parameters.items():
        if name in NAMES and not config.has_part(binding):
            unused.append((f"{short_name(name)}.{parameter}", binding))
    return free, [(name, b) for name, b in unused if not b.origin.endswith(KNOWN)]


def _say_unused(reading: Reading, unused: list[tuple[str, Binding]], macros: list[str]) -> None:
    """A macro that others use is none of the caller's mistakes, nor is a file of T5X."""
    said = []
    for name, binding in unused:
        advice = near(name, macros) if "." not in name else ""
        if binding.file is None:
            reading.refusals.append(
                f"{binding.origin}: nothing in this configuration uses it{advice}."
            )
        elif name not in macros and not binding.origin.startswith(_THEIR_FOLDERS):
            said.append(f"{name} ({binding.origin}{advice})")
    if said:
        reading.notes.append(f"used by nothing that is trained: {', '.join(said)}.")


def _is_macro(part: Binding) -> bool:
    return "." not in part.target


def _is_ours(part: Part) -> bool:
    return (
        isinstance(part, Binding)
        and not part.scope
        and part.target.rpartition(".")[0] in CONFIGURABLES
    )


def _check_names(reading: Reading, parts: Sequence[Part]) -> None:
    """Refuses what nobody knows, wherever it stands; with the nearest name."""
    said = set()
    for (name, parameter, _), binding in reading.config.parameters.items():
        why = why_none(name)
        if name in NAMES:
            known = {k for k in parameters_of(name) if k != "@"}
            if parameter not in known:
                advice = near(parameter, sorted(known))
                reading.refusals.append(
                    f"{binding.origin}: {short_name(name)}.{parameter} is not known here{advice}."
                )
        elif name not in said and why is None:
            advice = near(f"{name}.{parameter}", PARAMETERS) or near(name, SHORT_NAMES)
            reading.refusals.append(f"{binding.origin}: there is no {name!r} here{advice}.")
        said.add(name)
    for part in parts:
        if isinstance(part, Binding) and _is_ours(part) and part.target not in PARAMETERS:
            advice = near(part.target, PARAMETERS)
            reading.refusals.append(f"{part.origin}: there is no {part.target!r}{advice}.")
        if isinstance(part, Binding) and part.scope and _is_macro(part):
            reading.refusals.append(f"{part.origin}: {part.scope}/... of a macro is not read.")


def _refuse_scripts(config: Config) -> None:
    """A file for another of T5X's scripts than its training."""
    names = {name: binding for (name, _, _), binding in config.parameters.items()}
    for name, binding in names.items():
        if name.startswith(SCRIPTS) and "t5x.train.train" not in names:
            why = why_none(name)
            raise UserError(f"{binding.origin}: {short_name(name)} is {why}.")


def _modules(reading: Reading, parts: Sequence[Part]) -> None:
    """A module of the user's own that is imported registers tasks: MIXTURE_OR_TASK_MODULE."""
    named = reading.chosen.get("MIXTURE_OR_TASK_MODULE")
    imports = [part for part in parts if isinstance(part, Import)]
    own = {p.module: p for p in imports if p.module.split(".")[0] not in LIBRARIES}
    if named is not None and isinstance(named.value, str) and named.value not in own:
        if named.value.split(".")[0] == "t5":
            del reading.chosen["MIXTURE_OR_TASK_MODULE"]  # its tasks are always known
        else:
            own = {named.value: named, **own}  # type: ignore[dict-item]
    if len(own) > 1:
        reading.refuse(
            None,
            f"{', '.join(own)} are imported, and MIXTURE_OR_TASK_MODULE takes one module: make "
            "one that imports them",
            "MIXTURE_OR_TASK_MODULE",
        )
    for module, part in own.items():
        origin = part.origin
        reading.chosen["MIXTURE_OR_TASK_MODULE"] = Binding(
            "MIXTURE_OR_TASK_MODULE", module, origin, origin
        )


def _has_object(value: Any) -> bool:
    return any(isinstance(part, Reference) for part in leaves(value))


def _named_macros(parts: Iterable[Part]) -> set[str]:
    """Those that the values of others use."""
    return {
        leaf.name
        for part in parts
        if isinstance(part, Binding)
        for leaf in leaves(part.value)
        if isinstance(leaf, Macro)
    }


def lines(translation: Translation) -> tuple[str, ...]:
    """What was used, a setting of ours and its place a line, and what was passed over."""
    names = [f"{b.target} = {b.value!r}" for b in translation.bindings]
    width = max(map(len, names), default=0)
    used = [
        f"  {name:{width}}  # {binding.origin}"
        for name, binding in zip(names, translation.bindings, strict=True)
    ]
    return (
        "T5X's settings are read as (`switchx convert-gin` writes this into a file):",
        *used,
        *(["and beside them:"] if translation.notes else []),
        *(f"  {note}" for note in translation.notes),
    )


def _refusal(sentences: list[str]) -> str:
    if len(sentences) == 1:
        return sentences[0]
    lines = "\n".join(f"  {sentence}" for sentence in sentences)
    return f"{len(sentences)} settings of T5X's files cannot be taken:\n{lines}"
