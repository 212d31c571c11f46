"""Files that are there whole or not at all, however the process ends."""

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from switchx.errors import RunError
from switchx.storage.paths import AnyPath, file_system, is_remote
from switchx.storage.retries import explain, with_retries

_REMOTE_SECONDS = 1800.0  # of one try: a shard may have a gigabyte
_UNFINISHED = ".part"


def write_whole(path: AnyPath, content: str | bytes) -> None:
    """Writes a small file, making its folders; what was there before stays until all of it is.

    Raises:
      RunError: it cannot be written.
    """
    with whole_file(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def whole_file(path: AnyPath) -> Iterator[Path]:
    """Yields a path on this machine to write to, which becomes `path` once the block ends.

    Nothing is left of it where the block raises.

    Raises:
      RunError: it cannot be written.
    """
    file = _uploaded(str(path)) if is_remote(path) else _renamed(Path(path))
    with write_errors(path), file as part:
        yield part


@contextlib.contextmanager
def _renamed(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = unfinished_beside(path)
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())  # or a crash of the machine could leave the name without this
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def _uploaded(url: str) -> Iterator[Path]:
    system, name = file_system(url)
    with tempfile.TemporaryDirectory() as scratch:
        part = Path(scratch) / "part"
        yield part
        # An object appears when its upload is done.
        with_retries(lambda: system.put_file(str(part), name), url, _REMOTE_SECONDS, "written")


def unfinished_beside(path: Path) -> Path:
    """A new name in the folder of a path: short, since the path's own may be as long as any."""
    return path.with_name(f".{uuid.uuid4().hex}{_UNFINISHED}")


def remove_unfinished(folder: AnyPath) -> None:
    """Removes what killed processes left in a folder to which no other process writes now."""
    if not is_remote(folder):
        for left in Path(folder).iterdir():
            if left.name.startswith(".") and left.name.endswith(_UNFINISHED):
                remove(left)


def remove(path: AnyPath) -> None:
    """Removes a file, or a folder with everything in it, if it is there.

    Raises:
      RunError: it cannot be removed.
    """
    with write_errors(path), contextlib.suppress(FileNotFoundError):
        if is_remote(path):
            system, name = file_system(str(path))
            system.rm(name, recursive=True)
        elif Path(path).is_dir():
            shutil.rmtree(path)
        else:
            os.unlink(path)


@contextlib.contextmanager
def write_errors(path: AnyPath) -> Iterator[None]:
    """Within, what the file system refuses becomes one sentence.

    Raises:
      RunError: instead of an OSError, or of the want of a package for the path's URL.
    """
    try:
        yield
    except (OSError, ImportError) as error:
        raise RunError(f"{path} cannot be written ({explain(error)}).") from error
