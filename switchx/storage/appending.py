"""Files that grow while a run goes on."""

from collections.abc import Callable
from pathlib import Path

from switchx.storage.paths import AnyPath
from switchx.storage.reading import read_if_there
from switchx.storage.writing import write_errors, write_whole


class Appender:
    """A file that grows: complete up to the last flush, however the process ends.

    Behind that there may be a part of what came after it. `open_appender` makes one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab")

    def append(self, content: bytes) -> None:
        """Adds to the end; RunError where it cannot be written."""
        with write_errors(self._path):
            self._file.write(content)

    def flush(self) -> None:
        """What was appended can be read by others once this returns; RunError where it cannot."""
        with write_errors(self._path):
            self._file.flush()

    def close(self) -> None:
        """Flushes and closes."""
        with write_errors(self._path):
            self._file.close()


def open_appender(path: AnyPath, keep: Callable[[bytes], bytes] | None = None) -> Appender:
    """Opens a file to append to, made with its folders where it is missing.

    Args:
      keep: says what stays of what is there, as after a kill; None keeps all.

    Raises:
      RunError: it cannot be written.
    """
    there = read_if_there(path, "a run") if keep else None
    if keep and there is not None:
        kept = keep(there)
        if kept != there:
            write_whole(path, kept)
    return Appender(Path(path))
