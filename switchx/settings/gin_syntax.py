"""Gin's notation, parsed by gin's own parser into plain values.

Nothing is executed and nothing is kept in gin's global configuration. What the bindings mean
together is `gin_values`' business.
"""

import dataclasses
import difflib
import io
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
    """@Name(), a dataclass built from its own bindings."""

    name: str

    def __repr__(self) -> str:
        return f"@{self.name}()"


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
    """

    target: str
    value: Any
    origin: str
    file: str | None = None

    @property
    def is_macro(self) -> bool:
        return "." not in self.target


@dataclasses.dataclass(frozen=True)
class Include:
    """A file to be read in this place; `origin` as of a Binding."""

    name: str
    origin: str


def read_text(text: str, name: str) -> Iterator[Binding | Include]:
    """What a text sets, in its order.

    Args:
      name: of the file, for the origins.

    Raises:
      UserError: a syntax error, or a name that gin can set nothing by.
    """
    for statement, origin in _statements(text, name):
        if isinstance(statement, config_parser.IncludeStatement):
            yield Include(statement.filename, origin)
        else:
            yield from _bindings(statement, origin)


def read_flag(flag: str) -> Binding:
    """The binding in the "NAME=VALUE" of --gin.NAME=VALUE.

    A value that is no literal of Python is taken as a string, so that names and paths need no
    quotes within the shell's.
    """
    name, _, value = flag.partition("=")
    origin = f"--gin.{name}={value}"
    try:
        statements = list(_parse(f"{name} = {value}"))
    except _NOT_GIN as error:
        if value[:1] in "'\"[({%@":
            raise UserError(f"{origin} is not valid gin ({_reason(error)}).") from error
        statements = _plain_text(name, value, origin)
    bindings = [binding for statement in statements for binding in _bindings(statement, origin)]
    if len(bindings) != 1:
        raise UserError(f"{origin} is not one setting: write --gin.NAME=VALUE.")
    return bindings[0]


def _plain_text(name: str, value: str, origin: str) -> list[Any]:
    """The statement that sets a name to a string."""
    try:
        return list(_parse(f"{name} = {value!r}"))
    except _NOT_GIN as error:
        raise UserError(f"{origin} is not one setting: write --gin.NAME=VALUE.") from error


def _statements(text: str, name: str) -> Iterator[tuple[Any, str]]:
    """Statements of a file, each with where it stands."""
    try:
        for statement in _parse(text):
            yield statement, f"{name} line {statement.location.line_num}"
    except RecursionError as error:
        raise UserError(f"{name} is not valid gin (nested too deeply).") from error
    except (SyntaxError, tokenize.TokenError) as error:
        line = error.lineno if isinstance(error, SyntaxError) else error.args[1][0]
        raise UserError(f"{name} line {line} is not valid gin ({_reason(error)}).") from error


def _parse(text: str) -> Iterator[Any]:
    return iter(config_parser.ConfigParser(io.StringIO(text), _Delegate()))


_NOT_GIN = (SyntaxError, tokenize.TokenError, RecursionError)


def _reason(error: Exception) -> str:
    message = error.msg if isinstance(error, SyntaxError) else str(error.args[0])
    return " ".join(str(message).split()).rstrip(".").lower()


class _Delegate(config_parser.ParserDelegate):
    """Turns @ and % into plain values; what they stand for is found out later."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Reference:
        return Reference(scoped_configurable_name)

    def macro(self, macro_name: str) -> Macro:
        return Macro(macro_name)


def _bindings(statement: Any, origin: str) -> Iterator[Binding]:
    """The binding of a statement, or none; refuses what would set nothing."""
    if isinstance(statement, config_parser.ImportStatement):
        raise UserError(f"{origin}: {_import_advice(statement)}.")
    if isinstance(statement, config_parser.BlockDeclaration):
        return  # the block's bindings follow as statements of their own
    if statement.scope:
        raise UserError(
            f"{origin}: the scope in {statement.scope}/... has no meaning here: leave it out."
        )
    if statement.arg_name:
        _check_parameter(statement.selector, statement.arg_name, origin)
        yield Binding(f"{statement.selector}.{statement.arg_name}", statement.value, origin)
    else:
        yield Binding(statement.selector, statement.value, origin)
    for part in leaves(statement.value):
        if isinstance(part, Reference) and part.name not in CONFIGURABLES:
            raise UserError(f"{origin}: there is no {part!r}{near(part.name, CONFIGURABLES)}.")


def _import_advice(statement: Any) -> str:
    advice = f"{statement.format()} has no meaning here, where nothing is registered with gin"
    if statement.module.startswith("__gin__"):
        return f"{advice}: leave the line out"
    return (
        f"{advice}: leave the line out, and name a module that registers seqio tasks with "
        "MIXTURE_OR_TASK_MODULE"
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
