"""The gin that a sweep's folder keeps: read alone it states the same sweep."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from switchx.settings import Binding
from switchx.settings.configurables import SWEEP
from switchx.settings.gin_values import BASE, GinConfig

GIN_FILE = "gin_file"  # the axis whose values are files
SAVED = "sweep.gin"
HEADER = "# Written by switchx sweep."
_AXES = f"{SWEEP}.axes"


def texts(
    gin: GinConfig,
    name: str,
    files: Mapping[str, Sequence[Binding]],
    flags: Sequence[Binding],
) -> dict[str, str]:
    """What to write, by its name in the folder: sweep.gin, and the files of the axis 'gin_file'.

    Args:
      gin: all that states the sweep.
      name: of the sweep, which is the file's where it has no other.
      files: what each value of that axis sets, by its label.
      flags: of the command line, which win over these files.
    """
    bindings = dict(gin.bindings)
    if files:
        axes = gin.value(_AXES)
        named = labels(axes[GIN_FILE])
        values = [_copy(named[value]) for value in axes[GIN_FILE]]
        bindings[_AXES] = dataclasses.replace(bindings[_AXES], value={**axes, GIN_FILE: values})
    bindings[f"{SWEEP}.name"] = Binding(f"{SWEEP}.name", name, "the sweep")
    own = [binding for binding in bindings.values() if binding.file != BASE]
    head = f"{HEADER} Read alone, with --gin_file, this is the same sweep.\n\n"
    found = {SAVED: head + _text(own)}
    for label, sets in files.items():
        found[_copy(label)] = f"{HEADER}\n\n" + _text([*sets, *flags])
    return found


def labels(values: Iterable[str]) -> dict[str, str]:
    """What stands for each file of an axis: its name, or all of its path where others have it."""
    values = list(dict.fromkeys(values))
    stems = [Path(value).stem for value in values]
    return {
        value: stem if stems.count(stem) == 1 else value.removesuffix(".gin").replace("/", "-")
        for value, stem in zip(values, stems, strict=True)
    }


def _copy(label: str) -> str:
    return f"gin/{label}.gin"


def _text(bindings: Iterable[Binding]) -> str:
    """Macros, then parameters by their class; of each setting the last."""
    last: Mapping[str, Any] = GinConfig.of(list(bindings)).bindings
    macros = [f"{b.target} = {b.value!r}" for b in last.values() if b.is_macro]
    parameters = [f"{b.target} = {b.value!r}" for b in last.values() if not b.is_macro]
    parameters.sort(key=lambda line: line.split(".")[0])
    return "\n".join([*macros, "", *parameters, ""])
