"""Gin's notation, parsed by gin's own parser into plain values.

Nothing is executed and nothing is kept in gin's global configuration. What the bindings mean
together is `gin_values`' business.
"""

import dataclasses
import difflib
import io
import re
import tokenize
from collections.abc import Iterator, Sequence
from typing import Any

from gin import config_parser

from switchx.errors import UserError
from switchx.settings.configurables import CONFIGURABLES, PARAMETERS


@dataclasses.dataclass(frozen=True)
class Macro:
    """%NAME, a use of a macro's value."""

    name: str

    def __repr__(self) -> str:
        return f"%{self.name}"


@dataclasses.dataclass(frozen=True)
class Reference:
    """@Name(), a dataclass built from its own bindings.

    In T5X's files also @scope/module.function() and, not `called`, @module.function.
    """

    name: str
    scope: str = ""
    called: bool = True

    def __repr__(self) -> str:
        scope = f"{self.scope}/" if self.scope else ""
        return f"@{scope}{self.name}{'()' if self.called else ''}"


REQUIRED = Macro("gin.REQUIRED")  # T5X's mark of a macro that the user has to set


@dataclasses.dataclass(frozen=True)
class Binding:
    """One setting.

    Attributes:
      target: "BATCH_SIZE" for a macro, "ModelConfig.d_model" for a parameter.
      value: a literal, possibly with Macro and Reference inside.
      origin: where it stands, in words: "--gin.BATCH_SIZE=64" or "my.gin line 3".
      file: the file it was read through, as the caller named it; None where the caller gave the
        setting himself.
      scope: "train" of train/utils.DatasetConfig.seed, which only T5X's files have.
    """

    target: str
    value: Any
    origin: str
    file: str | None = None
    scope: str = ""

    @property
    def is_macro(self) -> bool:
        return "." not in self.target


@dataclasses.dataclass(frozen=True)
class Include:
    """A file to be read in this place; `origin` as of a Binding."""

    name: str
    origin: str


@dataclasses.dataclass(frozen=True)
class Import:
    """A module that a file of T5X names; in it `alias` is a name of `stands_for`.

    `origin` as of a Binding.
    """

    module: str
    alias: str
    stands_for: str
    written: str
    origin: str


@dataclasses.dataclass(frozen=True)
class Wrong:
    """A mistake, said where all of them are known."""

    sentence: str


Part = Binding | Include | Import | Wrong


def read_text(text: str, name: str) -> Iterator[Part]:
    """What a text says, in its order, whoever it is written for; see `own`.

    Names that begin with an imported one are given in full, as t5x.utils.DatasetConfig.

    Args:
      name: of the file, for the origins.

    A syntax error is the last of them.
    """
    modules: dict[str, str] = {}
    for statement, origin in _statements(text, name, modules):
        if isinstance(statement, config_parser.IncludeStatement):
            yield Include(statement.filename, origin)
        elif isinstance(statement, Wrong):
            yield statement
        elif isinstance(statement, config_parser.ImportStatement):
            yield _import(statement, origin, modules)
        elif isinstance(statement, config_parser.BindingStatement):
            yield _binding(statement, origin, modules)
        # What is left begins a block, whose bindings follow as statements of their own.


def own(part: Part) -> Binding:
    """The same, where it sets something of switchx.

    Raises:
      UserError: it is one of T5X's statements, or sets nothing by its name.
    """
    if isinstance(part, Wrong):
        raise UserError(part.sentence)
    if isinstance(part, Import):
        raise UserError(f"{part.origin}: {_import_advice(part)}.")
    if not isinstance(part, Binding):
        raise TypeError(part)
    if part.scope:
        raise UserError(
            f"{part.origin}: the scope in {part.scope}/... has no meaning here: leave it out."
        )
    name, _, parameter = part.target.rpartition(".")
    if name:
        _check_parameter(name, parameter, part.origin)
    for leaf in leaves(part.value):
        if isinstance(leaf, Reference) and leaf.name not in CONFIGURABLES:
            raise UserError(f"{part.origin}: there is no {leaf!r}{near(leaf.name, CONFIGURABLES)}.")
    return part


def read_flag(flag: str) -> Binding:
    """The binding in the "NAME=VALUE" of --gin.NAME=VALUE.

    A value that is no literal of Python is taken as a string, so that names and paths need no
    quotes within the shell's. Whether there is such a setting is seen where it is read (`own`).
    """
    name, _, value = flag.partition("=")
    origin = f"--gin.{name}={value}"
    try:
        statements = list(_parse(f"{name} = {value}"))
    except _NOT_GIN as error:
        if value[:1] in "'\"[({%@":
            raise UserError(f"{origin} is not valid gin ({_reason(error, value)}).") from error
        statements = _plain_text(name, value, origin)
    if len(statements) != 1 or not isinstance(statements[0], config_parser.BindingStatement):
        raise UserError(f"{origin} is not one setting: write --gin.NAME=VALUE.")
    return _binding(statements[0], origin, {})


def _plain_text(name: str, value: str, origin: str) -> list[Any]:
    """The statement that sets a name to a string."""
    try:
        return list(_parse(f"{name} = {value!r}"))
    except _NOT_GIN as error:
        raise UserError(f"{origin} is not one setting: write --gin.NAME=VALUE.") from error


def _statements(text: str, name: str, modules: dict[str, str]) -> Iterator[tuple[Any, str]]:
    """Statements of a file, each with where it stands; at a syntax error that, and no more."""
    try:
        for statement in _parse(text, modules):
            yield statement, f"{name} line {statement.location.line_num}"
    except RecursionError:
        yield Wrong(f"{name} is not valid gin (nested too deeply)."), name
    except (SyntaxError, tokenize.TokenError) as error:
        line: int = (error.lineno or 1) if isinstance(error, SyntaxError) else error.args[1][0]
        written = "".join(text.splitlines()[line - 1 : line])
        yield Wrong(f"{name} line {line} is not valid gin ({_reason(error, written)})."), name


def _parse(text: str, modules: dict[str, str] | None = None) -> Iterator[Any]:
    delegate = _Delegate({} if modules is None else modules)
    return iter(config_parser.ConfigParser(io.StringIO(text), delegate))


_NOT_GIN = (SyntaxError, tokenize.TokenError, RecursionError)


_WORD = re.compile(r"Failed to parse token '(.+)'")
_TYPOGRAPHIC = re.compile(
    "[\u2018\u2019\u201c\u201d\u00a0]"
)  # quotation marks, a space that does not break


def _reason(error: Exception, line: str) -> str:
    message = error.msg if isinstance(error, SyntaxError) else str(error.args[0])
    word, typographic = _WORD.search(str(message)), _TYPOGRAPHIC.search(line)
    if word:
        return f"{word[1]} is no value: write '{word[1]}' for a text, %{word[1]} for a setting's"
    if typographic:
        return f"{typographic[0]!r} is of a text processor: write ' or a plain space"
    return " ".join(str(message).split()).rstrip(".").lower()


class _Delegate(config_parser.ParserDelegate):
    """Turns @ and % into plain values; what they stand for is found out later."""

    def __init__(self, modules: dict[str, str]) -> None:
        self._modules = modules  # as they are imported further up in the file

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Reference:
        scope, _, name = scoped_configurable_name.rpartition("/")
        return Reference(_in_full(name, self._modules), scope, evaluate)

    def macro(self, macro_name: str) -> Macro:
        return Macro(macro_name)


def _import(statement: Any, origin: str, modules: dict[str, str]) -> Import:
    alias = statement.bound_name()
    # `import a.b` binds a, and names go on as a.b.c.
    whole = statement.is_from or statement.alias
    modules[alias] = statement.module if whole else alias
    return Import(statement.module, alias, modules[alias], statement.format(), origin)


def _binding(statement: Any, origin: str, modules: dict[str, str]) -> Binding:
    target = statement.selector
    if statement.arg_name:
        target = f"{_in_full(target, modules)}.{statement.arg_name}"
    return Binding(target, statement.value, origin, scope=statement.scope or "")


def _in_full(name: str, modules: dict[str, str]) -> str:
    first, dot, rest = name.partition(".")
    return f"{modules.get(first, first)}{dot}{rest}"


def _import_advice(part: Import) -> str:
    return (
        f"{part.written} has no meaning here, but in a file of T5X: `switchx convert-gin` makes "
        "one of switchx of that, else leave the line out"
    )


def leaves(value: Any) -> Iterator[Any]:
    """The innermost values of nested lists, tuples and dictionaries."""
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple):
        for part in value:
            yield from leaves(part)
    else:
        yield value


def _check_parameter(name: str, parameter: str, origin: str) -> None:
    target = f"{name}.{parameter}"
    if target in PARAMETERS:
        return
    if name in CONFIGURABLES:
        own = [known for known in PARAMETERS if known.startswith(f"{name}.")]
        raise UserError(f"{origin}: {name} has no parameter {parameter!r}{near(target, own)}.")
    advice = near(target, PARAMETERS) or f": there are {', '.join(CONFIGURABLES)}"
    raise UserError(f"{origin}: there is no {name!r}{advice}.")


def near(name: str, known: Sequence[str] | dict[str, Any]) -> str:
    """Advice to end a sentence with: the known name nearest to `name`, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f": the nearest name is {close[0]}" if close else ""
