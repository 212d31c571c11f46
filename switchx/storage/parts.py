"""Parts of files at URLs, many at a time: what is read by number out of large files."""

import errno
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from switchx.storage.paths import AnyPath, file_system
from switchx.storage.reading import read_errors
from switchx.storage.retries import with_retries

SECONDS = 60.0  # of one try of a group
_GROUP = 128  # requests at once
_GROUP_BYTES = 64 * 2**20
_GAP = 2**15  # bytes that cost less than a request of their own
_JOINED = 4 * 2**20  # bytes up to which parts are joined


class Part(NamedTuple):
    """The bytes from `begin` to before `end` of a file at a URL."""

    path: AnyPath
    begin: int
    end: int

    @property
    def size(self) -> int:
        """How many bytes."""
        return self.end - self.begin


def read_parts(parts: Sequence[Part], setting: str) -> list[bytes]:
    """The bytes of each part, of files of one bucket.

    Parts of a file that lie close together come by one request.

    Raises:
      UserError: one cannot be read, or its file ends before it does; it names the file.
    """
    wholes, whole_of = _joined(parts)
    contents: list[bytes] = []
    for group in _groups(wholes):
        contents += _read_group(group, setting)
    found = []
    for part, number in zip(parts, whole_of, strict=True):
        begin = part.begin - wholes[number].begin
        found.append(contents[number][begin : begin + part.size])
    return found


def _joined(parts: Sequence[Part]) -> tuple[list[Part], list[int]]:
    """What to ask for, and in which of these each part is."""
    wholes: list[Part] = []
    whole_of = [0] * len(parts)
    for number in sorted(
        range(len(parts)), key=lambda number: (str(parts[number].path), parts[number].begin)
    ):
        part = parts[number]
        last = wholes[-1] if wholes else None
        if (
            last is not None
            and last.path == part.path
            and part.begin - last.end <= _GAP
            and part.end - last.begin <= _JOINED
        ):
            wholes[-1] = Part(part.path, last.begin, max(last.end, part.end))
        else:
            wholes.append(part)
        whole_of[number] = len(wholes) - 1
    return wholes, whole_of


def _groups(parts: Sequence[Part]) -> Iterator[list[Part]]:
    group: list[Part] = []
    size = 0
    for part in parts:
        if group and (len(group) == _GROUP or size + part.size > _GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append(part)
        size += part.size
    if group:
        yield group


def _read_group(parts: Sequence[Part], setting: str) -> list[bytes]:
    found: dict[int, bytes] = {}
    failed = [parts[0].path]

    def read_the_rest() -> None:
        left = [number for number in range(len(parts)) if number not in found]
        error = None
        for number, answer in zip(left, _ask([parts[number] for number in left]), strict=True):
            if isinstance(answer, bytes):
                found[number] = answer
            else:
                error, failed[0] = answer, parts[number].path
        if error is not None:
            raise error

    try:
        with_retries(read_the_rest, str(parts[0].path), SECONDS)
    except Exception as error:  # whatever a file system raises
        with read_errors(failed[0], setting):
            raise error from None
    return [found[number] for number in range(len(parts))]


def _ask(parts: Sequence[Part]) -> list[bytes | Exception]:
    """One try at each part: its bytes, or why they did not come."""
    system, _ = file_system(parts[0].path)
    names = [file_system(part.path)[1] for part in parts]
    begins, ends = [part.begin for part in parts], [part.end for part in parts]
    answers = system.cat_ranges(names, begins, ends, on_error="return")
    return [_checked(part, answer) for part, answer in zip(parts, answers, strict=True)]


def _checked(part: Part, answer: bytes | Exception) -> bytes | Exception:
    if isinstance(answer, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, "No such file or directory")
    if isinstance(answer, bytes) and len(answer) != part.size:
        return OSError(f"{len(answer)} bytes came of {part.size} from byte {part.begin} on")
    return answer
