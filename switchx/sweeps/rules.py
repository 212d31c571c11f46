"""Arithmetic over settings, as a sweep's rules and exclusions have it: parsed, never executed.

The text goes through Python's parser; the tree that comes of it is walked here, and what is not on
the lists below is refused.
"""

import ast
import dataclasses
import math
import operator
from collections.abc import Callable, Iterator
from typing import Any

from switchx.errors import UserError

_LONGEST = 1000  # characters of an expression
_LARGEST = 2**256  # a whole number beyond is a mistake, and may take forever
_BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_UNARY: dict[type, Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
}
_COMPARISONS: dict[type, Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda value, values: value in values,
    ast.NotIn: lambda value, values: value not in values,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "min": min,
    "max": max,
    "sqrt": math.sqrt,
    "round": round,
}
_WAYS = (
    "numbers, settings, + - * / // % **, min, max, sqrt, round, comparisons, and, or, not, "
    "x if y else z"
)


class _RefusedError(Exception):
    """Why an expression has no value."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """An expression.

    Attributes:
      text: as it was written.
      where: what it stands in, as "SweepConfig.rules['BATCH_SIZE']".
      tree: of Python's parser.
    """

    text: str
    where: str
    tree: ast.expr = dataclasses.field(compare=False, repr=False)

    @classmethod
    def parse(cls, text: Any, where: str) -> "Rule":
        """Raises UserError for what is no arithmetic."""
        if not isinstance(text, str):
            raise UserError(f"{where}={text!r} is no expression: write it as a string.")
        try:
            if len(text) > _LONGEST:
                raise _RefusedError(f"it is longer than {_LONGEST} characters")
            tree = ast.parse(text.strip(), mode="eval").body
            for node in _parts(tree):
                _check(node)
        except (SyntaxError, ValueError, RecursionError, MemoryError, _RefusedError) as error:
            why = error if isinstance(error, _RefusedError) else "it cannot be parsed"
            raise UserError(f"{where}={text!r} is not arithmetic ({why}): use {_WAYS}.") from None
        return cls(text, where, tree)

    @property
    def names(self) -> list[str]:
        """The settings that it refers to, in their order."""
        found = (_name(node) for node in _parts(self.tree))
        return list(dict.fromkeys(name for name in found if name is not None))

    def value(self, setting: Callable[[str], Any]) -> Any:
        """Its value.

        Args:
          setting: gives the value of a setting by its name.

        Raises:
          UserError: there is none, as of a division by zero.
        """
        try:
            found = _value(self.tree, setting)
            if isinstance(found, float) and not math.isfinite(found):
                raise _RefusedError(f"its value is {found}")
            return found
        except (ArithmeticError, TypeError, ValueError, LookupError, _RefusedError) as error:
            values = ", ".join(f"{name}={setting(name)!r}" for name in self.names)
            raise UserError(
                f"{self.where}={self.text!r} has no value where {values or 'it stands'} "
                f"({_why(error)}): change it, or exclude such points."
            ) from None


def _why(error: Exception) -> str:
    if isinstance(error, OverflowError):
        return "a number in it is too large"
    return f"there is no {error}" if isinstance(error, KeyError) else str(error)


def _name(node: ast.AST) -> str | None:
    """The setting that a node names: NAME, or Config.field."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return f"{node.value.id}.{node.attr}"
    return None


def _parts(tree: ast.expr) -> Iterator[ast.AST]:
    """The nodes that have a value, and whatever is none of ours; a setting is one node."""
    yield tree
    if _name(tree) is not None:
        return
    children = list(ast.iter_child_nodes(tree))
    if isinstance(tree, ast.Call):
        children = [*tree.args, *tree.keywords]
    for child in children:
        if isinstance(child, ast.expr):
            yield from _parts(child)
        else:
            yield child


_LEAVES = (ast.Constant, ast.Tuple, ast.List, ast.Subscript, ast.IfExp, ast.BoolOp, ast.Compare)
_MARKS = (ast.Load, ast.And, ast.Or, *_BINARY, *_UNARY, *_COMPARISONS)


def _check(node: ast.AST) -> None:
    if isinstance(node, ast.Constant):
        if not isinstance(node.value, int | float | str | bool | None):
            raise _RefusedError(f"{ast.unparse(node)} is no number")
    elif isinstance(node, ast.Subscript):
        if not isinstance(node.slice, ast.Constant):
            raise _RefusedError(f"{ast.unparse(node)} needs a plain key")
    elif isinstance(node, ast.Call):
        name = ast.unparse(node.func)
        if name not in _FUNCTIONS or node.keywords:
            raise _RefusedError(f"{name}() is not known")
    elif isinstance(node, ast.BinOp):
        _known(_BINARY, node.op, node)
    elif isinstance(node, ast.UnaryOp):
        _known(_UNARY, node.op, node)
    elif _name(node) is None and not isinstance(node, (*_LEAVES, *_MARKS)):
        raise _RefusedError(f"{ast.unparse(node)} is not known")
    if isinstance(node, ast.Compare):
        for op in node.ops:
            _known(_COMPARISONS, op, node)


def _known(table: dict[type, Any], op: ast.AST, node: ast.expr) -> None:
    if type(op) not in table:
        raise _RefusedError(f"{ast.unparse(node)} is not known")


def _value(node: ast.AST, setting: Callable[[str], Any]) -> Any:
    name = _name(node)
    if name is not None:
        return setting(name)

    def of(part: ast.AST) -> Any:
        return _value(part, setting)

    match node:
        case ast.Constant():
            return node.value
        case ast.Tuple() | ast.List():
            return tuple(map(of, node.elts))
        case ast.Subscript(value=inner, slice=ast.Constant(value=key)):
            return of(inner)[key]
        case ast.BinOp():
            return _calculated(node.op, _number(of(node.left)), _number(of(node.right)))
        case ast.UnaryOp():
            inner = of(node.operand)
            return _UNARY[type(node.op)](inner if isinstance(node.op, ast.Not) else _number(inner))
        case ast.IfExp():
            return of(node.body) if of(node.test) else of(node.orelse)
        case ast.BoolOp(op=ast.And()):
            return all(of(part) for part in node.values)
        case ast.BoolOp():
            return any(of(part) for part in node.values)
        case ast.Compare():
            return _compared(node, of)
        case ast.Call(func=ast.Name(id=function)):
            return _FUNCTIONS[function](*(_number(of(part)) for part in node.args))
    raise _RefusedError(f"{ast.unparse(node)} is not known")


def _calculated(op: ast.operator, left: Any, right: Any) -> Any:
    whole = isinstance(left, int) and isinstance(right, int)
    if whole and isinstance(op, ast.Pow) and left.bit_length() * abs(right) > _LARGEST.bit_length():
        raise _RefusedError("a number in it is too large")
    found = _BINARY[type(op)](left, right)
    if isinstance(found, int) and abs(found) > _LARGEST:
        raise _RefusedError("a number in it is too large")
    return _number(found)


def _compared(node: ast.Compare, of: Callable[[ast.AST], Any]) -> bool:
    left = of(node.left)
    for op, part in zip(node.ops, node.comparators, strict=True):
        right = of(part)
        if not _COMPARISONS[type(op)](left, right):
            return False
        left = right
    return True


def _number(value: Any) -> Any:
    if not isinstance(value, int | float):
        raise _RefusedError(f"{value!r} is no number")
    return value
