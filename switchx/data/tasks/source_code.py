"""Reads the source code of Python files as text, without importing or running them.

Needs the standard library only, and runs as a process of its own as well: file names on stdin,
one a line; on stdout one JSON line a file, the list of its paragraphs.
"""

import json
import re
import sys

MAX_FILE_BYTES = 600_000  # larger ones are generated tables
MIN_PARAGRAPH_CHARS = 40
# A paragraph ends where an empty line is followed by a line that is not indented: mostly one
# definition each. So a function that another package copied is left out alone.
_BETWEEN = re.compile(r"\n\s*\n(?=\S)")
_LICENCE = re.compile(r"\A(?:\s*#.*\n|\s*\n)+")  # the comments before anything else


def paragraphs_of(path: str) -> list[str]:
    """Returns a file's paragraphs in order, whitespace collapsed, comments at its top left out.

    A file that cannot be read, is no UTF-8 or is too large gives none.
    """
    try:
        with open(path, "rb") as file:
            source = file.read(MAX_FILE_BYTES + 1)
        text = _LICENCE.sub("", source.decode("utf-8").replace("\0", " "))
    except (OSError, UnicodeDecodeError):
        return []
    if len(source) > MAX_FILE_BYTES:
        return []
    # SentencePiece turns every run of whitespace into one space anyway; done here, a document
    # is one line of a text file.
    paragraphs = (" ".join(paragraph.split()) for paragraph in _BETWEEN.split(text))
    return [paragraph for paragraph in paragraphs if _is_code(paragraph)]


def _is_code(text: str) -> bool:
    """Long enough, with enough letters to be no table of numbers, and mostly ASCII."""
    if len(text) < MIN_PARAGRAPH_CHARS:
        return False
    letters = sum(character.isalpha() for character in text)
    ascii_only = sum(character.isascii() for character in text)
    return letters >= 0.45 * len(text) and ascii_only >= 0.97 * len(text)


def main() -> None:
    """Reads file names from stdin, writes their paragraphs to stdout."""
    for line in sys.stdin:
        print(json.dumps(paragraphs_of(line.rstrip("\n"))), flush=False)


if __name__ == "__main__":
    main()
