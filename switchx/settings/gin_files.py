"""Reads gin: finds files, parses them with gin's own parser, and returns what they set.

The result is a plain list of bindings in the order of their reading. What they mean together is
`gin_values`' business; nothing is kept in gin's global configuration.
"""

import contextlib
import dataclasses
import difflib
import io
import os
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gin import config_parser

import switchx
from switchx.errors import UserError
from switchx.settings.configurables import CONFIGURABLES, PARAMETERS

# Where configs/ lies: at the top of a checkout, inside an installed package (see setup.py).
_PACKAGE = Path(switchx.__file__).resolve().parent
HOME = _PACKAGE if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent


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
      file: the file it was read through, as the user named it; None for the command line.
    """

    target: str
    value: Any
    origin: str
    file: str | None = None

    @property
    def is_macro(self) -> bool:
        return "." not in self.target


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reads files relative to the working folder, then `search_paths`, then where
    switchx has its own `configs/`."""

    search_paths: Sequence[str] = ()

    def read_file(self, name: str, setting: str = "--gin_file") -> list[Binding]:
        """All bindings of a file and of those it includes.

        Raises:
          UserError: no such file, a syntax error, or a name that gin can set nothing by.
        """
        bindings = self._read(name, f"{setting}={name!r}", ())
        return [dataclasses.replace(binding, file=name) for binding in bindings]

    def parse(self, text: str) -> list[Binding]:
        """All bindings of a text that includes nothing."""
        return [b for statement, at in _statements(text, "gin") for b in _bindings(statement, at)]

    def _read(self, name: str, wanted_by: str, outer: tuple[Path, ...]) -> Iterator[Binding]:
        path = self._find(name, wanted_by)
        if path in outer:
            raise UserError(f"{wanted_by} includes itself.")
        for statement, origin in _statements(_text(path, wanted_by), name):
            if isinstance(statement, config_parser.IncludeStatement):
                wanted = f"include {statement.filename!r} ({origin})"
                yield from self._read(statement.filename, wanted, (*outer, path))
            else:
                yield from _bindings(statement, origin)

    def _find(self, name: str, wanted_by: str) -> Path:
        for folder in self._folders():
            path = folder / Path(name).expanduser()  # an absolute path stays what it is
            with contextlib.suppress(OSError, ValueError):  # no name that a file can have
                if path.is_file():
                    return path.resolve()
        places = "" if os.path.isabs(name) else f" in {' or '.join(map(str, self._folders()))}"
        raise UserError(f"{wanted_by} was not found{places}{_near_file(name)}.")

    def _folders(self) -> list[Path]:
        folders = [Path.cwd(), *map(Path, self.search_paths), HOME]
        return list(dict.fromkeys(folders))


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
            raise UserError(f"{origin}: the value is not valid gin ({_reason(error)}).") from error
        statements = _plain_text(name, value, origin)
    bindings = [binding for statement in statements for binding in _bindings(statement, origin)]
    if len(bindings) != 1:
        raise UserError(f"{origin} is not one setting; write --gin.NAME=VALUE.")
    return bindings[0]


def _plain_text(name: str, value: str, origin: str) -> list[Any]:
    """The statement that sets a name to a string."""
    try:
        return list(_parse(f"{name} = {value!r}"))
    except _NOT_GIN as error:
        raise UserError(f"{origin} is not one setting; write --gin.NAME=VALUE.") from error


def _text(path: Path, wanted_by: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{wanted_by} cannot be read: {error}.") from error


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
        raise UserError(
            f"{origin}: import {statement.module} is not supported; name a module that registers "
            "seqio tasks with MIXTURE_OR_TASK_MODULE."
        )
    if isinstance(statement, config_parser.BlockDeclaration):
        return  # the block's bindings follow as statements of their own
    if statement.scope:
        raise UserError(f"{origin}: the scope in {statement.scope}/... has no meaning here.")
    if statement.arg_name:
        _check_parameter(statement.selector, statement.arg_name, origin)
        yield Binding(f"{statement.selector}.{statement.arg_name}", statement.value, origin)
    else:
        yield Binding(statement.selector, statement.value, origin)
    for reference in references(statement.value):
        if reference.name not in CONFIGURABLES:
            known = near(reference.name, CONFIGURABLES)
            raise UserError(f"{origin}: there is no {reference!r}{known}.")


def references(value: Any) -> Iterator[Reference]:
    """The @References within a value."""
    return (part for part in leaves(value) if isinstance(part, Reference))


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
    advice = near(target, PARAMETERS) or f"; there are {', '.join(CONFIGURABLES)}"
    raise UserError(f"{origin}: there is no {name!r}{advice}.")


def near(name: str, known: Sequence[str] | dict[str, Any]) -> str:
    """Advice to end a sentence with: the known name nearest to `name`, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; the nearest name is {close[0]}" if close else ""


def _near_file(name: str) -> str:
    files = sorted((HOME / "configs").glob("**/*.gin"))
    by_stem = {path.stem: path.relative_to(HOME) for path in files}
    close = difflib.get_close_matches(Path(name).stem, by_stem, n=3)
    return f"; near it are {', '.join(str(by_stem[stem]) for stem in close)}" if close else ""
