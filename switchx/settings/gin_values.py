"""What bindings mean together: macros resolved, dataclasses built, mistakes named."""

import dataclasses
import math
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from switchx.errors import UserError
from switchx.settings.configurables import CONFIGURABLES, ROOTS
from switchx.settings.gin_syntax import REQUIRED, Binding, Macro, Reference, leaves, near

# Read by whoever loads a configuration, so that no parameter has to refer to it.
MODEL_DIR = "MODEL_DIR"
ONCE = ("RESET_DATA", "RESET_OPTIMIZER")  # of one start, not of the run
BASE = "configs/base.gin"  # every macro with its default

# Names that T5X's users bring along, and what to do with them here.
FROM_T5X = {
    "USE_CACHED_TASKS": "tasks are read as seqio registers them, so leave it out",
    "NUM_MICROBATCHES": "its name here is MICROBATCHES",
    "NUM_MODEL_PARTITIONS": "its name here is MESH_MODEL",
    "NUM_EXPERT_PARTITIONS": "its name here is MESH_EXPERT",
    "MODEL_PARALLEL_SUBMESH": "set MESH_DATA, MESH_EXPERT and MESH_MODEL",
    "RANDOM_SEED": "its name here is SEED",
    "TRAIN_EVAL_STEPS": "its name here is EVAL_STEPS",
    "TASK_MODULE": "its name here, as in T5X, is MIXTURE_OR_TASK_MODULE",
    "AUX_LOSS_FACTOR": "set SwitchConfig.balance_loss_weight",
    "ROUTER_Z_LOSS_FACTOR": "set SwitchConfig.router_z_loss_weight",
    "JITTER_NOISE": "set SwitchConfig.jitter",
    "GROUP_SIZE": "set ENCODER_GROUP_SIZE and DECODER_GROUP_SIZE",
}


@dataclasses.dataclass(frozen=True)
class GinConfig:
    """Bindings by target, the last one of each: macros and parameters.

    Attributes:
      displaced: of a macro that gave a parameter its value, what gives it another since.
    """

    bindings: Mapping[str, Binding]
    displaced: Mapping[str, Binding] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, bindings: list[Binding]) -> "GinConfig":
        found: dict[str, Binding] = {}
        displaced: dict[str, Binding] = {}
        for binding in bindings:
            before = found.get(binding.target)
            if before is not None and isinstance(before.value, Macro) and not before.is_macro:
                displaced[before.value.name] = binding
            found[binding.target] = binding
        return cls(found, displaced)

    def with_defaults(self, **macros: Any) -> "GinConfig":
        """Fills in macros that are still required, for a command that can do without them."""
        filled = {
            name: Binding(name, value, "a default")
            for name, value in macros.items()
            if name in self.bindings and self.bindings[name].value == REQUIRED
        }
        return GinConfig({**self.bindings, **filled})

    def build(self, name: str) -> Any:
        """The dataclass of that name, from its bindings.

        Raises:
          UserError: something required is missing, or a value has the wrong type or is refused.
        """
        cls = CONFIGURABLES[name]
        hints = typing.get_type_hints(cls)
        values = {}
        for field in dataclasses.fields(cls):
            target = f"{name}.{field.name}"
            if target in self.bindings:
                values[field.name] = self._checked(target, hints[field.name])
            elif field.default is dataclasses.MISSING:
                raise UserError(
                    f"{target} is not set: name a model, as in "
                    "--gin_file=configs/models/switch_base_8.gin."
                )
        return cls(**values)

    def macro(self, name: str) -> Any:
        """A macro's value."""
        return self._resolve(Macro(name), name)

    def value(self, target: str) -> Any:
        """A parameter's value."""
        return self._resolve(self.bindings[target].value, target)

    def _checked(self, target: str, hint: Any) -> Any:
        value = self._resolve(self.bindings[target].value, target)
        if not _fits(value, hint):
            name = self.name_to_set(target)
            raise UserError(f"{name}={value!r} must be {_in_words(hint, name)}.")
        for part in leaves(value):
            if isinstance(part, int | float) and not _is_held(part):
                name = self.name_to_set(target)
                raise UserError(
                    f"{name}={value!r} is not finite, or too large for 64 bits: give a number "
                    "that is neither."
                )
        return value

    def _resolve(self, value: Any, setting: str, using: tuple[str, ...] = ()) -> Any:
        """Replaces macros and references within a value; `setting` is what it is for."""
        if value == REQUIRED:
            used = self.used() - {setting}
            others = [b.target for b in self.bindings.values() if b.value == REQUIRED]
            flags = [f" and --gin.{name}=VALUE" for name in others if name in used]
            raise UserError(
                f"{setting} is required and not set: add --gin.{setting}=VALUE{''.join(flags)}."
            )
        if isinstance(value, Reference):
            return self.build(value.name)
        if isinstance(value, Macro):
            if value.name in using:
                raise UserError(f"{value!r} is defined by itself: give it a value.")
            if value.name not in self.bindings:
                raise UserError(f"{setting} uses {value!r}, which is not set: set {value.name}.")
            inner = self.bindings[value.name].value
            return self._resolve(inner, value.name, (*using, value.name))
        if isinstance(value, dict):
            return {k: self._resolve(v, setting, using) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._resolve(part, setting, using) for part in value)
        return value

    def name_to_set(self, target: str) -> str:
        """The macro that gives a parameter its value, where one does: what the user would type."""
        while target in self.bindings and isinstance(self.bindings[target].value, Macro):
            name = self.bindings[target].value.name
            if name == REQUIRED.name:
                break
            target = name
        return target

    def used(self, roots: Sequence[str] = ROOTS) -> set[str]:
        """Targets that have a part in what is built."""
        found = {MODEL_DIR}
        waiting = list(roots)
        while waiting:
            prefix = f"{waiting.pop()}."
            for target in self.bindings:
                if target.startswith(prefix) and target not in found:
                    for name in self._behind(target, found):
                        waiting.append(name)
        return found

    def _behind(self, target: str, found: set[str]) -> Iterator[str]:
        """Adds a target and the macros behind it to `found`; yields the references met."""
        found.add(target)
        for part in leaves(self.bindings[target].value):
            if isinstance(part, Reference):
                yield part.name
            elif isinstance(part, Macro) and part.name in self.bindings and part.name not in found:
                yield from self._behind(part.name, found)

    def check_all_used(self) -> None:
        """Raises UserError for a setting that would be ignored.

        In files, a macro that nothing refers to. On the command line, also one that does not
        reach what is built, such as NUM_EXPERTS of a dense model. (Files are more general than
        one run: they may carry settings for a model that a later file replaces.)
        """
        known = {MODEL_DIR, *(m.name for b in self.bindings.values() for m in _macros(b.value))}
        used = self.used()
        for binding in self.bindings.values():
            if binding.is_macro and binding.target not in known:
                raise self.unused(binding, known)
            if binding.file is None and binding.target not in used:
                raise UserError(
                    f"{binding.origin}: nothing in this configuration uses it: leave it out."
                )

    def unused(self, binding: Binding, known: Iterable[str]) -> UserError:
        """The error for a macro that nothing refers to.

        Args:
          known: the names that there are.
        """
        instead = self.displaced.get(binding.target)
        if instead is not None:
            place = "" if binding.file == BASE else f", which {binding.origin} sets"
            return UserError(
                f"{instead.origin}: {instead.target} takes the place of {binding.target}{place}: "
                f"set {binding.target} in its place."
            )
        advice = FROM_T5X.get(binding.target, "")
        advice = f": {advice}" if advice else near(binding.target, sorted(known))
        return UserError(f"{binding.origin}: nothing uses {binding.target}{advice}.")

    def settings(self) -> dict[str, Any]:
        """The values of all parameters that have a part in what is built, by the names to set."""
        values = {}
        for target in self.used():
            if not self.bindings[target].is_macro:
                value = self.bindings[target].value
                plain = value if isinstance(value, Reference) else self.value(target)
                values[self.name_to_set(target)] = plain
        return values

    def explained(self, message: str) -> str:
        """A refusal's sentence, and where the values in it were set that the caller never wrote.

        Defaults are left out beside a value that he did write: that is what he has to change.
        """
        named = (match for match in _SETTING.finditer(message) if match[1] in self.bindings)
        found = [m[1] for m in named if self._says(message[m.end() :], m[1])]
        bindings = [self.bindings[name] for name in dict.fromkeys(found)]
        typed = any(binding.file is None for binding in bindings)
        places: dict[str, list[str]] = {}
        for binding in bindings:
            if binding.file == BASE and not typed:
                places.setdefault(f"default in {BASE}", []).append(binding.target)
            elif binding.file not in (BASE, None):
                places.setdefault(binding.origin, []).append(binding.target)
        said = "; ".join(f"{', '.join(names)}: {place}" for place, names in places.items())
        return f"{message} ({said}.)" if said else message

    def _says(self, text: str, name: str) -> bool:
        """Whether a text begins with a setting's value, and not with another, as in advice."""
        try:
            return text.startswith(repr(self._resolve(Macro(name), name)))
        except UserError:
            return False

    def text(self) -> str:
        """Gin that gives the same configuration when read alone."""
        used = self.used()
        kept = [binding for binding in self.bindings.values() if binding.target in used]
        macros = [f"{b.target} = {b.value!r}" for b in kept if b.is_macro]
        parameters = [f"{b.target} = {b.value!r}" for b in kept if not b.is_macro]
        parameters.sort(key=lambda line: line.split(".")[0])
        return "\n".join([*macros, "", *parameters, ""])


_SETTING = re.compile(r"(?<![\w.])((?:[A-Za-z]\w*\.)?[A-Za-z]\w*)=")  # not that of --gin.NAME=VALUE


def _macros(value: Any) -> Iterator[Macro]:
    return (part for part in leaves(value) if isinstance(part, Macro))


def _fits(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, option) for option in typing.get_args(hint))
    if hint in (int, float):
        accepted = (int, float) if hint is float else int
        return isinstance(value, accepted) and not isinstance(value, bool)
    return isinstance(value, origin or hint)


def _is_held(number: float) -> bool:
    return abs(number) < 2**63 if isinstance(number, int) else math.isfinite(number)


_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "a string",
    bool: "True or False",
    types.NoneType: "None",
    tuple: "a tuple",
    list: "a list",
    Sequence: "a list",
}


_FILES = "{'train': 'text/*.txt', 'validation': 'held_out.txt'}"
_DICTIONARIES = {
    "TASK_FEATURE_LENGTHS": "{'inputs': 512, 'targets': 114}",
    "TEXT_FILES": _FILES,
    "TASK_FILES": _FILES,
    "TASK_FIELDS": "{'inputs': 'q: {question}', 'targets': 'answer'}",
    "MIXTURE_STARTS": "{'c4_v310_span_corruption': 1000}",
}


def _in_words(hint: Any, name: str) -> str:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return " or ".join(_option_in_words(option, name) for option in options)


def _option_in_words(hint: Any, name: str) -> str:
    if dataclasses.is_dataclass(hint):
        return f"@{hint.__name__}()"  # type: ignore[union-attr]
    example = f" such as {_DICTIONARIES[name]}" if name in _DICTIONARIES else ""
    return _WORDS.get(typing.get_origin(hint) or hint, f"a dictionary{example}")
