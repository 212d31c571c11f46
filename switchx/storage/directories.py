"""Directories: made where they are missing, or there whole or not at all."""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from switchx.errors import UserError
from switchx.storage.paths import AnyPath, local_path
from switchx.storage.retries import explain
from switchx.storage.writing import unfinished_beside, write_errors


def make_directory(path: Path, setting: str) -> None:
    """Makes a directory with its parents where it is missing; files can be made in it then.

    Raises:
      UserError: it is a file, or cannot be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except (FileExistsError, NotADirectoryError):
        raise UserError(
            f"{setting}={str(path)!r} is a file or lies below one: name a directory."
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{setting}={str(path)!r} cannot be written to ({explain(error)}): "
            "name a directory in which you may create files."
        ) from None


def check_new(path: AnyPath, setting: str) -> Path:
    """The path on this machine, if nothing is there.

    Raises:
      UserError: something is, or it is no local path.
    """
    target = local_path(path, setting).absolute()
    if os.path.lexists(target):
        raise UserError(f"{setting}={str(path)!r} exists already: give the name of a new one.")
    return target


def set_aside(path: Path, folder: Path) -> Path:
    """Moves a file or directory into a folder under a name of its own; returns where it is now.

    Raises:
      RunError: it cannot be moved.
    """
    aside = folder / f"{path.name}-{time.time_ns()}"
    with write_errors(aside):
        folder.mkdir(parents=True, exist_ok=True)
        path.rename(aside)
    return aside


@contextlib.contextmanager
def new_directory(path: AnyPath, setting: str) -> Iterator[Path]:
    """Yields a directory on this machine to fill; it becomes `path` once the block ends.

    Nothing is left of it where the block raises.

    Raises:
      UserError: something is there already, or nothing can be made there.
      RunError: something could not be written into it.
    """
    target = check_new(path, setting)
    part = unfinished_beside(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part.mkdir()
    except OSError as error:
        raise UserError(
            f"{setting}={str(path)!r} cannot be made ({explain(error)}): "
            "name a directory where you may create files."
        ) from None
    try:
        with write_errors(path):
            yield part
            check_new(path, setting)
            part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
