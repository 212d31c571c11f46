"""Reads hostile lines in a process of its own and prints what came of it, for test_hostile.

Its arguments: the case, the file to write and read, and the longest line in megabytes.
"""

import gzip
import json
import resource
import sys
from pathlib import Path

MEGABYTE = 10**6


def write(path: Path, case: str) -> None:
    with gzip.open(path, "wb", 1) if path.suffix == ".gz" else path.open("wb") as file:
        for part in CASES[case]():
            file.write(part)


def good():
    return json.dumps({"text": "a good line"}).encode() + b"\n"


def endless_line():
    """200 MB without an end of line, between good lines."""
    yield good()
    yield b'{"text": "'
    for _ in range(200):
        yield b"y" * MEGABYTE
    yield b'"}\n'
    yield good()


def one_character():
    """A text of 100 MB of one character."""
    yield b'{"text": "'
    for _ in range(100):
        yield b"a" * MEGABYTE
    yield b'"}\n'
    yield good()


def bomb():
    """200 MB of zeros, in a compressed file of less than one."""
    yield good()
    for _ in range(200):
        yield bytes(MEGABYTE)
    yield b"\n"
    yield good()


CASES = {"endless_line": endless_line, "one_character": one_character, "bomb": bomb}


def main(case: str, path: Path, longest: int) -> None:
    write(path, case)
    from switchx.data.files import lines
    from switchx.data.tasks.texts import LineCounter, blocks_of

    lines.MAX_LINE_BYTES = longest * MEGABYTE
    counter = LineCounter(1.0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    blocks = blocks_of(str(path), "C4_JSON_TRAIN")
    sizes = [len(text) for block in blocks for text in counter.parse(block)]
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000  # from KiB
    result = {"sizes": sizes, "lines": counter.lines, "broken": counter.broken, "megabytes": grown}
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
