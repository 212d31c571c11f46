"""T5X's files as gin reads them: macros, scopes and references, from the train script on."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from switchx.settings.gin_syntax import REQUIRED, Binding, Macro, Part, Reference, leaves
from switchx.settings.t5x.names import aliases_of, full_name
from switchx.settings.t5x.rows import UNSET, Row
from switchx.settings.t5x.table import NAMES, TABLE, parameters_of, row_of

_TRAIN = "t5x.train.train"
_MOST_DEEP = 40  # references within references


@dataclasses.dataclass(frozen=True)
class Use:
    """A parameter that has a part in what is trained.

    Attributes:
      name: of its configurable, in full.
      value: without macros; `REQUIRED` where it was left to the user.
      binding: the statement that its value stands in; None where it is T5X's default.
      path: the parameters that led to the configurable, the nearest last.
    """

    name: str
    parameter: str
    value: Any
    binding: Binding | None
    path: tuple[str, ...]
    row: Row | None


@dataclasses.dataclass
class Config:
    """What all files and flags say together, the last statement of each.

    Attributes:
      macros: by name.
      parameters: by configurable, parameter and scope.
      spare: macros of a name that is T5X's and a value that is switchx's.
      seen: the statements that have a part in what is trained, once `uses` has been asked.
    """

    macros: dict[str, Binding]
    parameters: dict[tuple[str, str, str], Binding]
    spare: list[Binding] = dataclasses.field(default_factory=list)
    seen: set[tuple[str, str]] = dataclasses.field(default_factory=set)

    @classmethod
    def of(cls, parts: Sequence[Part]) -> "Config":
        aliases = aliases_of(parts)
        found = cls({}, {})
        for part in parts:
            if not isinstance(part, Binding):
                continue
            value = _in_full(part.value, aliases)
            name, _, parameter = part.target.rpartition(".")
            if name:
                name = full_name(name, aliases)
                own = dataclasses.replace(part, target=f"{name}.{parameter}", value=value)
                found.parameters[name, parameter, part.scope] = own
            elif found._takes(part.target, value):
                found.macros[part.target] = dataclasses.replace(part, value=value)
            else:
                found.spare.append(part)
        return found

    def has_part(self, binding: Binding) -> bool:
        """Whether it has a part in what is trained."""
        return (binding.target, binding.origin) in self.seen

    def _see(self, binding: Binding) -> Binding:
        self.seen.add((binding.target, binding.origin))
        return binding

    def _takes(self, name: str, value: Any) -> bool:
        """VOCABULARY='/a/path' is a setting of ours: a macro of T5X's holds an object there."""
        before = self.macros.get(name)
        return not (
            before is not None
            and isinstance(before.value, Reference)
            and not isinstance(value, Reference | Macro)
        )

    def uses(self) -> list[Use]:
        """All that has a part in what is trained, in the order of its building."""
        found = list(self._built(_TRAIN, "", ()))
        if not any(use.parameter == "model" and use.name == _TRAIN for use in found):
            model = self.macros.get("MODEL")
            if model is not None:
                value, binding = self.resolved(model.value, self._see(model))
                row = TABLE[_TRAIN]["model"]
                found.append(Use(_TRAIN, "model", value, binding, (), row))
                found += self._within(value, "", ("model",))
        return found

    def _built(self, name: str, scope: str, path: tuple[str, ...]) -> Iterator[Use]:
        if len(path) > _MOST_DEEP:
            return
        for parameter in self._parameters(name):
            row = row_of(name, parameter, path)
            binding = self._bound(name, parameter, scope)
            if binding is not None:
                value, binding = self.resolved(binding.value, binding)
            elif row is not None and row.default is not UNSET:
                value = row.default
            else:
                continue
            yield Use(name, parameter, value, binding, path, row)
            yield from self._within(value, scope, (*path, parameter))
        method = f"{name}.predict_batch_with_aux"
        if method in TABLE:
            yield from self._built(method, scope, path)

    def _parameters(self, name: str) -> list[str]:
        bound = [parameter for own, parameter, _ in self.parameters if own == name]
        return [p for p in dict.fromkeys([*parameters_of(name), *bound]) if p != "@"]

    def _within(self, value: Any, scope: str, path: tuple[str, ...]) -> Iterator[Use]:
        """Of what a value refers to."""
        for part in leaves(value):
            if isinstance(part, Reference):
                yield Use(part.name, "@", part, None, path, None)
                if part.name in NAMES:
                    yield from self._built(part.name, part.scope or scope, path)

    def _bound(self, name: str, parameter: str, scope: str) -> Binding | None:
        """That of the narrowest scope."""
        scopes = scope.split("/") if scope else []
        for length in range(len(scopes), -1, -1):
            found = self.parameters.get((name, parameter, "/".join(scopes[:length])))
            if found is not None:
                return self._see(found)
        return None

    def resolved(self, value: Any, binding: Binding) -> tuple[Any, Binding]:
        """A value without macros, and the statement that it stands in."""
        using: list[str] = []
        while isinstance(value, Macro) and value != REQUIRED and value.name in self.macros:
            if value.name in using:
                break
            using.append(value.name)
            binding = self._see(self.macros[value.name])
            value = binding.value
        return self._deep(value, binding), binding

    def _deep(self, value: Any, binding: Binding) -> Any:
        if isinstance(value, dict):
            return {k: self.resolved(v, binding)[0] for k, v in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.resolved(part, binding)[0] for part in value)
        if isinstance(value, Macro) and value != REQUIRED and "." in value.name:
            return value.name.rsplit(".", 1)[1]  # a constant, as moe_enums.LayerLayout.MIXED
        return value


def _in_full(value: Any, aliases: dict[str, str]) -> Any:
    if isinstance(value, Reference):
        return dataclasses.replace(value, name=full_name(value.name, aliases))
    if isinstance(value, dict):
        return {k: _in_full(v, aliases) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_in_full(part, aliases) for part in value)
    return value
