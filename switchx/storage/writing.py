"""Files that are there whole or not at all, however the process ends."""

import contextlib
import glob
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from switchx.errors import RunError
from switchx.storage.paths import AnyPath, expanded, file_system, is_remote
from switchx.storage.retries import with_retries
from switchx.storage.trouble import explain, explain_missing_bucket

SMALL_SECONDS = 30.0  # of one try
LARGE_SECONDS = 1800.0  # a shard may have a gigabyte
REQUESTS = 16  # at a time, of many small ones
_UNFINISHED = ".part"


def write_whole(path: AnyPath, content: str | bytes) -> None:
    """Writes a small file, making its folders; what was there before stays until all of it is.

    Raises:
      RunError: it cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    if is_remote(path):
        with write_errors(path):
            _upload(path, lambda system, name: system.pipe_file(name, data), SMALL_SECONDS)
        return
    with whole_file(path) as part:
        part.write_bytes(data)


@contextlib.contextmanager
def whole_file(path: AnyPath) -> Iterator[Path]:
    """Yields a path on this machine to write to, which becomes `path` once the block ends.

    Nothing is left of it where the block raises.

    Raises:
      RunError: it cannot be written.
    """
    file = _uploaded(path) if is_remote(path) else _renamed(Path(expanded(os.fspath(path))))
    with write_errors(path), file as part:
        yield part


def upload(part: Path, path: AnyPath) -> None:
    """Copies a file of this machine to a URL, whole or not at all; OSError where it cannot."""
    _upload(path, lambda system, name: system.put_file(str(part), name), LARGE_SECONDS)


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
def _uploaded(path: AnyPath) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as scratch:
        part = Path(scratch) / "part"
        yield part
        upload(part, path)


def _upload(path: AnyPath, write: Callable[[Any, str], object], seconds: float) -> None:
    """An object appears when its upload is done; a second upload of the same changes nothing."""
    system, name = file_system(path)
    try:
        with_retries(lambda: write(system, name), os.fspath(path), seconds, "written")
    except FileNotFoundError as error:
        # Folders need not be made: only a bucket can be missing.
        raise OSError(explain_missing_bucket(path)) from error


def unfinished_beside(path: Path) -> Path:
    """A new name in the folder of a path: short, since the path's own may be as long as any."""
    return path.with_name(f".{uuid.uuid4().hex}{_UNFINISHED}")


def remove_unfinished(folder: AnyPath) -> None:
    """Removes what killed processes left in a folder to which no other process writes now."""
    if not is_remote(folder) and Path(folder).is_dir():
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
            system, name = file_system(path)
            with_retries(
                lambda: _remove_objects(system, name), os.fspath(path), LARGE_SECONDS, "removed"
            )
        elif Path(path).is_dir():
            shutil.rmtree(path)
        else:
            os.unlink(path)


def _remove_objects(system: Any, name: str) -> None:
    there = list(system.find(name))
    if any(map(glob.has_magic, there)):
        # As many at once as a store takes, but fsspec takes such names for patterns of others.
        with ThreadPoolExecutor(REQUESTS) as pool:
            list(pool.map(system.rm_file, there))
    elif there:
        system.rm(there)


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
