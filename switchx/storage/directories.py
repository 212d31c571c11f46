"""Directories: made where they are missing, or there whole or not at all."""

import contextlib
import functools
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from switchx.errors import RunError, UserError
from switchx.storage.paths import (
    AnyPath,
    as_path,
    file_system,
    is_remote,
    local_path,
    writable_path,
)
from switchx.storage.reading import is_file, names_in
from switchx.storage.retries import with_retries
from switchx.storage.trouble import explain, explain_missing_bucket
from switchx.storage.writing import (
    LARGE_SECONDS,
    REQUESTS,
    SMALL_SECONDS,
    remove,
    unfinished_beside,
    upload,
    write_errors,
    write_whole,
)

UNFINISHED = ".unfinished"
_PROBE = ".probe-"


def make_directory(path: AnyPath, setting: str) -> None:
    """Makes a directory with its parents where it is missing; files can be made in it then.

    An object store has no directories: there it asks for nothing but a bucket that can be read.

    Raises:
      UserError: it is a file, or cannot be made or written to.
    """
    if is_remote(path):
        if is_file(writable_path(path, setting), setting):
            raise UserError(f"{setting}={os.fspath(path)!r} is a file: name a directory.")
        return
    path = local_path(path, setting)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except (FileExistsError, NotADirectoryError):
        what = "a file or lies below one"
        if path.is_symlink() and not path.exists():
            what = f"a link to {os.readlink(path)!r}, where nothing is"
        raise UserError(f"{setting}={str(path)!r} is {what}: name a directory.") from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{setting}={str(path)!r} cannot be written to ({explain(error)}): "
            "name a directory in which you may create files."
        ) from None


def check_new(path: AnyPath, setting: str) -> Path:
    """The path, if nothing is there: of this machine, gs:// or s3://.

    At a URL it is tried whether objects can be written and removed there: what is written may take
    hours to make.

    Raises:
      UserError: something is, or nothing can be written there.
    """
    target = _check_free(path, setting)
    if is_remote(target):
        check_writable(target, setting)
    return target


def check_new_file(path: AnyPath, setting: str) -> Path:
    """As `check_new`, of a file whose folder must be there, which an object store's need not.

    Raises:
      UserError: something is there, or nothing can be written there.
    """
    target = check_new(path, setting)
    folder = target.parent
    if not is_remote(target) and not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise UserError(
            f"{setting}={os.fspath(path)!r} cannot be written: {str(folder)!r} must be a writable "
            "folder."
        )
    return target


def check_writable(url: AnyPath, setting: str) -> None:
    """Raises UserError where no object can be written at or below a URL; leaves none."""
    probe = as_path(url) / f"{_PROBE}{uuid.uuid4().hex}"
    try:
        system, name = file_system(probe)
        _try(lambda: system.pipe_file(name, b""), probe)
        _try(lambda: system.rm_file(name), probe)
    except OSError as error:
        why = explain(error)
        if isinstance(error, FileNotFoundError):
            why = explain_missing_bucket(url)
        raise UserError(
            f"{setting}={os.fspath(url)!r} cannot be written to ({why}): see to it, or name "
            "another place."
        ) from error


def _try(call: Callable[[], object], url: AnyPath) -> None:
    with_retries(call, os.fspath(url), SMALL_SECONDS, "written")


def _check_free(path: AnyPath, setting: str) -> Path:
    target = writable_path(path, setting)
    if is_remote(target):
        names = {name for name in names_in(target, setting) if not name.startswith(_PROBE)}
        taken = is_file(target, setting) or (bool(names) and UNFINISHED not in names)
    else:
        target = target.absolute()
        taken = os.path.lexists(target)
    if taken:
        raise UserError(
            f"{setting}={os.fspath(path)!r} exists already: give the name of a new one."
        )
    if not is_remote(target):
        _check_parent(target, os.fspath(path), setting)
    return target


def _check_parent(target: Path, shown: str, setting: str) -> None:
    """What is to lie there may take hours to make: it must be possible."""
    above = next(folder for folder in target.parents if os.path.lexists(folder))
    if not above.is_dir():
        raise UserError(f"{setting}={shown!r} lies below a file, {above}: name another place.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UserError(
            f"{setting}={shown!r} cannot be made: {above} must be a folder that you may write to."
        )


def set_aside(path: Path, folder: Path) -> Path:
    """Moves a file or directory into a folder under a name of its own; returns where it is now.

    Raises:
      RunError: it cannot be moved.
    """
    aside = folder / f"{path.name}-{time.time_ns()}"
    with write_errors(aside):
        if is_remote(path):
            (system, name), there = file_system(path), file_system(aside)[1]
            copy = functools.partial(_copy_objects, system, name, there)
            with_retries(copy, os.fspath(path), LARGE_SECONDS, "set aside")
            remove(path)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            path.rename(aside)
    return aside


def _copy_objects(system: Any, name: str, there: str) -> None:
    """Within the store, each by its name: fsspec's own copy takes some names for patterns."""
    found = list(system.find(name))
    with ThreadPoolExecutor(REQUESTS) as pool:
        list(pool.map(system.cp_file, found, [there + path[len(name) :] for path in found]))


@contextlib.contextmanager
def new_directory(path: AnyPath, setting: str, head: str) -> Iterator[Path]:
    """Yields a directory on this machine to fill; it becomes `path` once the block ends.

    Nothing is left of it where the block raises. In an object store its files are uploaded then,
    and `head`, without which nobody takes the rest for anything, is the last of them; a kill leaves
    what the next command of this name writes over.

    Args:
      head: the file in it that tells what it is, as "config.json".

    Raises:
      UserError: something is there already, or nothing can be made there.
      RunError: something could not be written into it.
    """
    target = _check_free(path, setting)
    directory = _uploaded(target, head) if is_remote(target) else _renamed(target, setting)
    with directory as part, write_errors(path):
        yield part


@contextlib.contextmanager
def new_place(path: AnyPath, setting: str) -> Iterator[Path]:
    """As `new_directory`, to be filled by what writes through storage: at a URL nothing is staged.

    Until the block ends a mark says that it is unfinished, and a kill leaves what the next command
    of this name removes first.

    Raises:
      UserError: something is there already, or nothing can be made there.
    """
    target = _check_free(path, setting)
    if not is_remote(target):
        with _renamed(target, setting) as part:
            yield part
        return
    remove(target)
    write_whole(target / UNFINISHED, "")
    try:
        yield target
    except BaseException:
        with contextlib.suppress(RunError):
            remove(target)
        raise
    remove(target / UNFINISHED)


@contextlib.contextmanager
def _renamed(target: Path, setting: str) -> Iterator[Path]:
    part = unfinished_beside(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part.mkdir()
    except OSError as error:
        raise UserError(
            f"{setting}={str(target)!r} cannot be made ({explain(error)}): "
            "name a directory where you may create files."
        ) from None
    try:
        yield part
        _check_free(target, setting)
        with write_errors(target):
            part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def _uploaded(target: Path, head: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as scratch:
        part = Path(scratch)
        yield part
        with write_errors(target):
            files = [file.relative_to(part) for file in part.rglob("*") if file.is_file()]
            write_whole(target / UNFINISHED, "")
            for file in sorted(files, key=lambda file: (str(file) == head, file)):
                upload(part / file, target / file)
            remove(target / UNFINISHED)
