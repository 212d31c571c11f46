"""A translation as a gin file of switchx that stands on its own."""

import textwrap
from collections.abc import Sequence

from switchx.settings.gin_syntax import REQUIRED, Binding, Macro, leaves
from switchx.settings.t5x.files import KNOWN
from switchx.settings.t5x.translation import Translation

_WIDTH = 100
_RUN = ("MODEL_DIR",)  # that no parameter refers to
_SECTIONS = {
    "DataConfig": "data",
    "TrainerConfig": "the run",
    "StartConfig": "the start",
    "ScoreConfig": "the tasks' own scores",
    "OptimizerConfig": "optimizer",
    "MeshConfig": "mesh",
    "ModelConfig": "model",
    "SwitchConfig": "experts",
}


def text(translation: Translation, base: Sequence[Binding], names: Sequence[str]) -> str:
    """The file: a section for each part of a run, macros before parameters.

    Args:
      base: what configs/base.gin sets.
      names: of the files that it was made of.
    """
    order = {binding.target: i for i, binding in enumerate(base)}
    kept = sorted(_last(translation), key=lambda b: order.get(b.target, len(order)))
    lines = _head(kept, translation.notes, names)
    owners = _owners([*base, *kept])
    own = [b for b in kept if b.is_macro and b.target not in owners and b.target not in _RUN]
    if own:
        lines += ["# ---- macros of its own ----", *map(_line, own), ""]
    for name, title in _SECTIONS.items():
        in_it = [b for b in kept if _owner(b, owners) == name]
        macros = [_line(b) for b in in_it if b.is_macro]
        parameters = [f"  {_line(b, b.target.partition('.')[2])}" for b in in_it if not b.is_macro]
        block = [f"{name}:", *parameters] if parameters else []
        if in_it:
            between = [""] if macros and block else []
            lines += [f"# ---- {title} ----", *macros, *between, *block, ""]
    return "\n".join(lines)


def missing(translation: Translation) -> list[str]:
    """What the file leaves to be set."""
    return _missing(_last(translation))


def _last(translation: Translation) -> list[Binding]:
    """The binding of each target that counts."""
    return list({binding.target: binding for binding in translation.bindings}.values())


def _missing(bindings: Sequence[Binding]) -> list[str]:
    return [binding.target for binding in bindings if binding.value == REQUIRED]


def _head(kept: Sequence[Binding], notes: Sequence[str], names: Sequence[str]) -> list[str]:
    said = (
        f"Made by `switchx convert-gin` of {', '.join(names)}: the same run, in switchx's words. "
        "Behind each setting stands the place that it comes from."
    )
    lines = _comment(said, "# ")
    if _missing(kept):
        lines += ["#", "# Required to be set:", *(f"#   - {name}" for name in _missing(kept))]
    if notes:
        lines += ["#", "# Passed over, since it does not change what is trained:"]
        lines += [line for note in notes for line in _comment(note, "#   - ")]
    return [*lines, ""]


def _comment(said: str, first: str) -> list[str]:
    later = "#" + " " * (len(first) - 1)
    return textwrap.wrap(
        said,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=later,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _owners(bindings: Sequence[Binding]) -> dict[str, str]:
    """The dataclass that each macro gives a value to."""
    return {
        leaf.name: binding.target.partition(".")[0]
        for binding in bindings
        if not binding.is_macro
        for leaf in leaves(binding.value)
        if isinstance(leaf, Macro)
    }


def _owner(binding: Binding, owners: dict[str, str]) -> str | None:
    if binding.target in _RUN:
        return "TrainerConfig"
    return owners.get(binding.target) if binding.is_macro else binding.target.partition(".")[0]


def _line(binding: Binding, name: str | None = None) -> str:
    place = " ".join(binding.origin.removesuffix(KNOWN).split())
    return f"{name or binding.target} = {binding.value!r}  # {place}"
