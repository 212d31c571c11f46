"""From a row of a file to the fields that a task takes: where each is found, and what it must be.

A field's name has the parts of a nested one joined by '/', as in 'answers/text'. Where it lies in a
row is a path ('answers.text'; of a list, the part of each item), or a text with paths in braces
('question: {question}'). A path that ends nowhere has the next one tried.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from switchx.checks import is_number
from switchx.data.tasks.table_files import Row
from switchx.errors import UserError

_BRACES = re.compile(r"\{([^{}]+)\}")
_KINDS = {
    "text": "text",
    "integer": "a whole number",
    "number": "a number",
    "label": "a label",
}
_UNLABELLED = -1


class Field(NamedTuple):
    """What a task takes of an example.

    Attributes:
      kind: 'text', 'integer', 'number' or 'label'.
      many: whether it is a list of these, of any length.
      labels: of a label, the word for each number; a row may have either. An example without a
        label, as those of test splits, has None, '' or -1.
      also: other words for labels, each with the label that it stands for.
      optional: whether the task does without it.
    """

    kind: str
    many: bool = False
    labels: tuple[str, ...] = ()
    also: tuple[tuple[str, str], ...] = ()
    optional: bool = False


class Places:
    """Where the fields of a task lie in the rows of some files."""

    def __init__(
        self,
        fields: Mapping[str, Field],
        given: Mapping[str, str],
        known: Mapping[str, Sequence[str]],
        setting: str,
    ) -> None:
        """Raises UserError where TASK_FIELDS names what the task has not.

        Args:
          given: TASK_FIELDS.
          known: other paths than the field's own name under which published files have a field,
            tried before that.
          setting: what led to the files.
        """
        strangers = sorted(set(given) - set(fields))
        if strangers:
            raise UserError(
                f"TASK_FIELDS={dict(given)!r} names {strangers[0]!r}, which the task does not "
                f"take: name some of {', '.join(map(repr, sorted(fields)))}."
            )
        self._fields, self._setting = fields, setting
        self._paths = {
            name: (given[name],)
            if name in given
            else (*known.get(name, ()), name.replace("/", "."))
            for name in fields
        }

    @property
    def columns(self) -> set[str]:
        """The first part of every path: no others are needed of a row."""
        return columns_of(path for paths in self._paths.values() for path in paths)

    def values(self, row: Row) -> dict[str, Any]:
        """The value of each field in a row; an optional one that is not there is left out.

        Raises:
          UserError: one that is needed is not there, or is something else.
        """
        found = {}
        for name, field in self._fields.items():
            value = self._find(row.values, name)
            if value is not Missing:
                found[name] = self._checked(row, name, field, value)
            elif not field.optional:
                raise self._missing(row, name)
        return found

    def _find(self, values: Mapping[str, Any], name: str) -> Any:
        for path in self._paths[name]:
            value = found_at(values, path)
            if value is not Missing:
                return value
        return Missing

    def _checked(self, row: Row, name: str, field: Field, value: Any) -> Any:
        items = value if field.many and isinstance(value, list) else [value]
        checked = [_as_kind(item, field) for item in items]
        if Missing in checked:
            shown = repr(value)[:80]
            which = f", one of {', '.join(map(repr, field.labels))}" if field.labels else ""
            raise UserError(
                f"{self._setting} leads to {row.place}, whose {self._shown(name)} is {shown} and "
                f"no {'list of ' if field.many else ''}{_KINDS[field.kind].removeprefix('a ')}"
                f"{which}: mend the file, or name the right field in TASK_FIELDS."
            )
        return checked if field.many else checked[0]

    def _missing(self, row: Row, name: str) -> UserError:
        there = ", ".join(map(repr, row.fields[:12])) or "none"
        return UserError(
            f"{self._setting} leads to {row.place}, which has no {self._shown(name)}; its fields "
            f"are {there}: name the one to take, as in TASK_FIELDS={{{name!r}: '...'}}."
        )

    def _shown(self, name: str) -> str:
        path = self._paths[name][-1]
        return f"{path!r}" if path == name.replace("/", ".") else f"{path!r} for {name!r}"


class Missing:
    """What is not there, or not what it should be: None may be a value."""


def columns_of(paths: Iterable[str]) -> set[str]:
    """The names of the columns in which paths, or texts with paths in braces, begin."""
    single = [found for path in paths for found in _BRACES.findall(path) or [path]]
    return {part for path in single for part in (path, path.split(".")[0])}


def found_at(values: Mapping[str, Any], path: str) -> Any:
    """What lies at a path of a row, or the text that has paths in braces; Missing if nothing."""
    return _formatted(values, path) if _BRACES.search(path) else _at(values, path)


def _at(value: Any, path: str) -> Any:
    """What lies at a path; of a list, what lies there in each item."""
    if isinstance(value, Mapping) and path in value:
        return value[path]
    part, _, rest = path.partition(".")
    if isinstance(value, list):
        items = [_at(item, path) for item in value]
        return Missing if Missing in items else items
    if not rest or not isinstance(value, Mapping) or part not in value:
        return Missing
    return _at(value[part], rest)


def _formatted(values: Mapping[str, Any], text: str) -> Any:
    """A text with its paths replaced by what lies there, joined by commas where it is a list."""
    found = {path: _at(values, path) for path in _BRACES.findall(text)}
    if Missing in found.values():
        return Missing

    def replaced(match: re.Match[str]) -> str:
        value = found[match[1]]
        items = value if isinstance(value, list) else [value]
        return ", ".join("" if item is None else str(item) for item in items)

    return _BRACES.sub(replaced, text)


def _as_kind(value: Any, field: Field) -> Any:
    """A value as its field's kind; Missing where it is none."""
    if field.kind == "label":
        return _as_label(value, field)
    if field.kind == "text":
        if isinstance(value, bool | int | float):
            return str(value)
        return value if isinstance(value, str) else Missing
    if not is_number(value):
        return Missing
    if field.kind == "number":
        return float(value)
    return int(value) if float(value).is_integer() else Missing


def _as_label(value: Any, field: Field) -> Any:
    """The number of a label, given as that or as a word; what is true or false is a word too."""
    if value is None or value == "":
        return _UNLABELLED
    if isinstance(value, bool | str):
        word = dict(field.also).get(str(value), str(value))
        return field.labels.index(word) if word in field.labels else Missing
    if isinstance(value, int) and _UNLABELLED <= value < len(field.labels):
        return value
    return Missing
