"""Reads the documentation strings of Python files, without importing or running them.

Needs the standard library only, and runs as a process of its own as well: file names on stdin,
one a line; on stdout one JSON line a file, the list of its docstrings.
"""

import ast
import inspect
import json
import re
import sys
import warnings

MAX_FILE_BYTES = 600_000  # larger ones are generated tables
MIN_DOC_SHARE = 0.12  # files with less documentation cost more time to parse than they give text
MIN_DOCSTRING_CHARS = 80
_QUOTED = re.compile(rb'"""(.*?)"""', re.DOTALL)
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def docstrings_of(path: str) -> list[str]:
    """Returns the docstrings of a Python file in source order, whitespace collapsed.

    A file that cannot be read or parsed, is too large or has hardly any documentation gives none.
    """
    try:
        with open(path, "rb") as file:
            source = file.read(MAX_FILE_BYTES + 1)
    except OSError:
        return []
    quoted = sum(len(text) for text in _QUOTED.findall(source))
    if len(source) > MAX_FILE_BYTES or quoted < MIN_DOC_SHARE * len(source):
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    return [text for text in map(_clean, _raw_docstrings(tree)) if _is_prose(text)]


def _raw_docstrings(tree: ast.Module) -> list[str]:
    # ast.walk goes level by level; by position keeps a class next to its methods.
    nodes = [node for node in ast.walk(tree) if isinstance(node, _DOCUMENTED)]
    nodes.sort(key=lambda node: getattr(node, "lineno", 0))
    return [text for text in (ast.get_docstring(node, clean=False) for node in nodes) if text]


def _clean(text: str) -> str:
    # SentencePiece turns every run of whitespace into one space anyway; done here, a document
    # is one line of a text file.
    printable = inspect.cleandoc(text).encode("utf-8", "ignore").decode("utf-8")
    return " ".join(printable.replace("\0", " ").split())


def _is_prose(text: str) -> bool:
    """Long enough, mostly letters (not a table of numbers), mostly ASCII (not another language)."""
    if len(text) < MIN_DOCSTRING_CHARS:
        return False
    letters = sum(character.isalpha() for character in text)
    ascii_only = sum(character.isascii() for character in text)
    return letters >= 0.55 * len(text) and ascii_only >= 0.97 * len(text)


def main() -> None:
    """Reads file names from stdin, writes their docstrings to stdout."""
    for line in sys.stdin:
        print(json.dumps(docstrings_of(line.rstrip("\n"))), flush=False)


if __name__ == "__main__":
    main()
