"""Reading and listing, wherever the files lie. Nothing here hangs: a remote call has a limit."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from switchx.errors import UserError
from switchx.storage.paths import (
    AnyPath,
    bucket_of,
    expanded,
    file_system,
    is_remote,
    scheme_of,
)
from switchx.storage.retries import with_retries
from switchx.storage.trouble import explain, explain_missing_bucket

REMOTE_SECONDS = 20.0
LISTING_SECONDS = 120.0  # a listing may be of tens of thousands of files, a page at a time
REMOTE_CHUNK = 2 * 2**20  # bytes of one request, held once for each file that is open
LOCAL_CHUNK = 2**20
T = TypeVar("T")


def read_bytes(path: AnyPath, setting: str, most: int | None = None) -> bytes:
    """Returns a small file's bytes.

    Raises:
      UserError: it cannot be read, or has more than `most` bytes.
    """
    parts: list[bytes] = []
    for chunk in chunks(path, setting):
        parts.append(chunk)
        if most is not None and sum(map(len, parts)) > most:
            raise too_large(path, setting, most)
    return b"".join(parts)


def too_large(path: AnyPath, setting: str, most: int) -> UserError:
    """What to say of a file that is no small one."""
    return UserError(
        f"{setting} leads to {str(path)!r}, which has more than {most:,} bytes: "
        "give a file of the right kind."
    )


def read_text(path: AnyPath, setting: str) -> str:
    """Returns a small file's text.

    Raises:
      UserError: it cannot be read, or is not UTF-8.
    """
    return as_text(read_bytes(path, setting), path, setting)


def as_text(content: bytes, path: AnyPath, setting: str) -> str:
    """What was read of a file, as text; UserError where it is not UTF-8."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise UserError(
            f"{setting} leads to {str(path)!r}, which is not UTF-8: give a text file."
        ) from None


def chunks(path: AnyPath, setting: str) -> Iterator[bytes]:
    """Yields a file's bytes in order, some at a time; UserError where it cannot be read."""
    with read_errors(path, setting):
        yield from _remote_chunks(os.fspath(path)) if is_remote(path) else _local_chunks(path)


def download(
    path: AnyPath, to: Path, setting: str, stopped: Callable[[], bool] = lambda: False
) -> bool:
    """Copies a file to one of this machine; False where `stopped` had it left unfinished.

    Raises:
      UserError: it cannot be read.
    """
    with to.open("wb") as file:
        for chunk in chunks(path, setting):
            if stopped():
                return False
            file.write(chunk)
    return True


def read_if_there(path: AnyPath, setting: str, most: int | None = None) -> bytes | None:
    """A small file's bytes; None where there is none.

    Raises:
      UserError: it cannot be read, or has more than `most` bytes.
    """
    if most is not None and (size_of(path, setting) or 0) > most:
        raise too_large(path, setting, most)
    if is_remote(path):
        return ask(path, setting, lambda system, name: system.cat_file(name))
    with read_errors(path, setting), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return Path(expanded(os.fspath(path))).read_bytes()
    return None


def size_of(path: AnyPath, setting: str) -> int | None:
    """A file's bytes; None where there is none."""
    if is_remote(path):
        return ask(path, setting, lambda system, name: system.size(name))
    with read_errors(path, setting), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return Path(expanded(os.fspath(path))).stat().st_size
    return None


def is_file(path: AnyPath, setting: str) -> bool:
    """Whether there is a file of this name."""
    if is_remote(path):  # fsspec's own isfile takes whatever goes wrong for no
        return ask(path, setting, lambda system, name: system.info(name)["type"]) == "file"
    return os.path.isfile(expanded(os.fspath(path)))


def is_folder(path: AnyPath, setting: str) -> bool:
    """Whether there is a folder; an object store has one where something lies in it."""
    if is_remote(path):
        return bool(names_in(path, setting))
    return os.path.isdir(expanded(os.fspath(path)))


def names_in(folder: AnyPath, setting: str) -> set[str]:
    """The names of what lies in a folder, folders included; none where there is no such folder."""
    if is_remote(folder):
        return ask(folder, setting, _list_names) or set()
    with read_errors(folder, setting), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return set(os.listdir(expanded(os.fspath(folder))))
    return set()


def sizes_in(folder: AnyPath, setting: str) -> dict[str, int]:
    """The names of the files that lie in a folder and the bytes of each; one listing of a URL."""
    if is_remote(folder):
        return ask(folder, setting, _list_sizes_in, LISTING_SECONDS) or {}
    here = Path(expanded(os.fspath(folder)))
    with read_errors(folder, setting), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return {path.name: path.stat().st_size for path in here.iterdir() if path.is_file()}
    return {}


def check_bucket(path: AnyPath, setting: str) -> None:
    """Raises UserError where a URL's bucket is not there, which reading takes for no file."""
    if is_remote(path):
        root = f"{scheme_of(path)}://{bucket_of(path)}"
        if ask(root, setting, lambda system, name: system.ls(name) is not None) is None:
            raise UserError(
                f"{setting}={str(path)!r} cannot be read: {explain_missing_bucket(path)}."
            )


@contextlib.contextmanager
def read_errors(path: AnyPath, setting: str) -> Iterator[None]:
    """Within, whatever a file system raises becomes one sentence.

    Raises:
      UserError: in the name of the setting that led to the path.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # each file system raises what it likes
        raise UserError(
            f"{setting} leads to {str(path)!r}, which cannot be read ({explain(error)}): "
            "give a path that can be read from this machine."
        ) from error


def _local_chunks(path: AnyPath) -> Iterator[bytes]:
    with open(expanded(os.fspath(path)), "rb") as file:
        while chunk := file.read(LOCAL_CHUNK):
            yield chunk


def _remote_chunks(url: str) -> Iterator[bytes]:
    system, name = file_system(url)
    position, file = 0, None
    while True:
        read = functools.partial(_read_on, system, name, position, [file])
        file, chunk = with_retries(read, url, REMOTE_SECONDS)
        if not chunk:
            return
        position += len(chunk)
        yield chunk


def _read_on(system: Any, name: str, position: int, opened: list[Any]) -> tuple[Any, bytes]:
    """Returns the open file and what follows a position; the first try takes what is open."""
    file = opened.pop() if opened else None
    if file is None:
        # No cache: what is read is read once, and the cache would hold several times as much.
        file = system.open(name, "rb", cache_type="none")
        file.seek(position)
    chunk = file.read(REMOTE_CHUNK)
    size = getattr(file, "size", None)
    if not chunk and size is not None and position < size:
        raise OSError(f"it ends at byte {position} of {size}")
    return file, chunk


def ask(
    url: AnyPath,
    setting: str,
    ask: Callable[[Any, str], T],
    seconds: float = REMOTE_SECONDS,
) -> T | None:
    """What a remote file system says of a URL; None where nothing is there."""
    with read_errors(url, setting), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        system, name = file_system(url)
        return with_retries(lambda: ask(system, name), os.fspath(url), seconds)
    return None


def _list_names(system: Any, folder: str) -> set[str]:
    listed = system.ls(folder, detail=False)
    # An object store may list the folder's own name, an empty object that other tools made.
    return {path.rstrip("/").rsplit("/", 1)[-1] for path in listed if path.rstrip("/") != folder}


def _list_sizes_in(system: Any, folder: str) -> dict[str, int]:
    listed = system.ls(folder, detail=True)
    return {
        entry["name"].rsplit("/", 1)[-1]: entry["size"] or 0
        for entry in listed
        if entry["type"] == "file" and entry["name"].rstrip("/") != folder
    }
