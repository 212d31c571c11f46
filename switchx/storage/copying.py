"""A folder's copy, which is there whole or is nothing."""

import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from switchx.storage.paths import AnyPath, as_path, file_system, is_remote, scheme_of
from switchx.storage.reading import download, read_errors
from switchx.storage.retries import with_retries
from switchx.storage.writing import (
    LARGE_SECONDS,
    REQUESTS,
    remove,
    unfinished_beside,
    upload,
    write_errors,
)


def copy_folder(source: AnyPath, target: AnyPath, last: str, setting: str) -> None:
    """Copies a folder with everything in it to a new place, where what was unfinished is replaced.

    On a disk it gets its name when all of it is there. In an object store its file `last` comes
    when all others have; one that lacks it there is nothing. Within a store nothing is downloaded.

    Args:
      setting: what leads to `source`.

    Raises:
      UserError: it cannot be read.
      RunError: the copy cannot be written.
    """
    source, target = as_path(source), as_path(target)
    remove(target)
    names = _files_below(source, setting)
    place = target if is_remote(target) else unfinished_beside(target)
    try:
        with write_errors(target):
            _copy_all(source, place, [name for name in names if name != last], setting)
            _copy_all(source, place, [name for name in names if name == last], setting)
            if place != target:
                os.rename(place, target)
    finally:
        if place != target:
            shutil.rmtree(place, ignore_errors=True)


def _files_below(folder: Path, setting: str) -> list[str]:
    with read_errors(folder, setting):
        if not is_remote(folder):
            files = (path for path in folder.rglob("*") if path.is_file())
            return sorted(path.relative_to(folder).as_posix() for path in files)
        system, root = file_system(folder)
        find: Callable[[], Any] = lambda: system.find(root)  # noqa: E731
        found = with_retries(find, os.fspath(folder), LARGE_SECONDS)
        return sorted(name[len(root) + 1 :] for name in found)


def _copy_all(source: Path, target: Path, names: list[str], setting: str) -> None:
    with ThreadPoolExecutor(REQUESTS) as pool:
        list(pool.map(lambda name: _copy(source / name, target / name, setting), names))


def _copy(source: Path, target: Path, setting: str) -> None:
    if not is_remote(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        download(source, target, setting)
    elif not is_remote(source):
        upload(source, target)
    elif scheme_of(source) == scheme_of(target):
        (system, name), there = file_system(source), file_system(target)[1]
        with_retries(
            lambda: system.cp_file(name, there), os.fspath(target), LARGE_SECONDS, "written"
        )
    else:
        with tempfile.TemporaryDirectory() as scratch:
            part = Path(scratch) / "part"
            download(source, part, setting)
            upload(part, target)
