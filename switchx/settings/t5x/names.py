"""What T5X's names mean: files may give a part of them, by an alias or without their module."""

from collections.abc import Iterable

from switchx.settings.gin_syntax import Import, Part
from switchx.settings.t5x.no_equal import NONE_HERE
from switchx.settings.t5x.table import NAMES

_SCRIPTS = {
    "train": "t5x.train.train",
    "evaluate": "t5x.eval.evaluate",
    "infer": "t5x.infer.infer",
    "precompile": "t5x.precompile.precompile",
    "save": "t5x.export_lib.save",
}
_SCRIPT_ALIASES = ("__main__", "train_script", "eval_script", "infer_script", "export_script")


def aliases_of(parts: Iterable[Part]) -> dict[str, str]:
    """What names stand for by the imports of all files.

    An included file may use those of the one that includes it.
    """
    return {part.alias: part.stands_for for part in parts if isinstance(part, Import)}


def full_name(name: str, aliases: dict[str, str]) -> str:
    """The name of a configurable as the table has it; as it is where that has none.

    Args:
      aliases: as of `aliases_of`.
    """
    if name in NAMES:
        return name
    first, _, rest = name.partition(".")
    if first in _SCRIPT_ALIASES and rest in _SCRIPTS:
        return _SCRIPTS[rest]
    if first in aliases and aliases[first] != first:
        return full_name(f"{aliases[first]}.{rest}", {})
    known = [k for k in (*NAMES, *NONE_HERE) if k.endswith(f".{name}")]
    return min(known, key=len, default=name)


def short_name(name: str) -> str:
    """A configurable's name as files give it: with the last part of its module."""
    script = next((alias for alias, full in _SCRIPTS.items() if full == name), None)
    if script == "train":
        return "train_script.train"
    return ".".join(name.split(".")[-2:])


def why_none(name: str) -> str | None:
    """Why a configurable has no equal here; None where the table does not say so."""
    found = [key for key in NONE_HERE if name == key or name.startswith(f"{key}.")]
    return NONE_HERE[max(found, key=len)] if found and name not in NAMES else None


SHORT_NAMES = [short_name(name) for name in NAMES]
