"""Reading and listing, wherever the files lie. Nothing here hangs: a remote call has a limit."""

import contextlib
import functools
import glob
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
_HASHES = ("md5Hash", "crc32c", "ETag", "blob_id", "etag")  # of gs, s3 and hf, by their names
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
        return _ask(path, setting, lambda system, name: system.cat_file(name))
    with read_errors(path, setting), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return Path(expanded(os.fspath(path))).read_bytes()
    return None


def size_of(path: AnyPath, setting: str) -> int | None:
    """A file's bytes; None where there is none."""
    if is_remote(path):
        return _ask(path, setting, lambda system, name: system.size(name))
    with read_errors(path, setting), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return Path(expanded(os.fspath(path))).stat().st_size
    return None


def is_file(path: AnyPath, setting: str) -> bool:
    """Whether there is a file of this name."""
    if is_remote(path):  # fsspec's own isfile takes whatever goes wrong for no
        return _ask(path, setting, lambda system, name: system.info(name)["type"]) == "file"
    return Path(expanded(os.fspath(path))).is_file()


def is_folder(path: AnyPath, setting: str) -> bool:
    """Whether there is a folder; an object store has one where something lies in it."""
    if is_remote(path):
        return bool(names_in(path, setting))
    return Path(expanded(os.fspath(path))).is_dir()


def names_in(folder: AnyPath, setting: str) -> set[str]:
    """The names of what lies in a folder, folders included; none where there is no such folder."""
    if is_remote(folder):
        return _ask(folder, setting, _list_names) or set()
    with read_errors(folder, setting), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return set(os.listdir(expanded(os.fspath(folder))))
    return set()


def sizes_in(folder: AnyPath, setting: str) -> dict[str, int]:
    """The names of the files that lie in a folder and the bytes of each; one listing of a URL."""
    if is_remote(folder):
        return _ask(folder, setting, _list_sizes_in, LISTING_SECONDS) or {}
    here = Path(expanded(os.fspath(folder)))
    with read_errors(folder, setting), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return {path.name: path.stat().st_size for path in here.iterdir() if path.is_file()}
    return {}


def list_files(pattern: str, setting: str) -> dict[str, int]:
    """Returns the files that a glob matches, by name and sorted, and the bytes of each.

    A file of exactly that name is what is meant, whatever characters are in it; of folders alike
    those that the pattern begins with. `**` is any number of folders.

    Raises:
      UserError: there is no looking there, in the name of the setting that holds the glob.
    """
    pattern = expanded(pattern)
    if is_remote(pattern):
        return _ask(pattern, setting, _list_sizes, LISTING_SECONDS) or {}
    whole = os.path.isfile(pattern)
    found = [pattern] if whole else glob.glob(_literal(pattern, os.path.isdir), recursive=True)
    with read_errors(pattern, setting):
        return {path: os.path.getsize(path) for path in sorted(found) if os.path.isfile(path)}


def list_hashes(pattern: str, setting: str) -> dict[str, str]:
    """The files that a glob at a URL matches and what changes with the content of each.

    That is the hash that its store keeps of it; a file without one is left out, as all of this
    machine are.
    """
    return (_ask(pattern, setting, _hashes, LISTING_SECONDS) or {}) if is_remote(pattern) else {}


def check_bucket(path: AnyPath, setting: str) -> None:
    """Raises UserError where a URL's bucket is not there, which reading takes for no file."""
    if is_remote(path):
        root = f"{scheme_of(path)}://{bucket_of(path)}"
        if _ask(root, setting, lambda system, name: system.ls(name) is not None) is None:
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


def _ask(
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


def _list_sizes(system: Any, pattern: str) -> dict[str, int]:
    return {path: found["size"] or 0 for path, found in _list(system, pattern).items()}


def _hashes(system: Any, pattern: str) -> dict[str, str]:
    hashes = {}
    for path, found in _list(system, pattern).items():
        known = [str(found[name]).strip('"') for name in _HASHES if found.get(name)]
        hashes.update({path: known[0]} if known else {})
    return hashes


def _literal(pattern: str, is_folder: Callable[[str], bool]) -> str:
    """The pattern with the folders that are there by these very names escaped: their [ is a [."""
    parts = pattern.split("/")
    for end in range(len(parts) - 1, 0, -1):
        folder = "/".join(parts[:end])
        if not glob.has_magic(folder):
            break
        if is_folder(folder):
            return "/".join([glob.escape(folder), *parts[end:]])
    return pattern


def _is_folder(system: Any, folder: str) -> bool:
    """Asks only where a set of characters may be meant as it stands."""
    if "[" not in folder:
        return False
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return bool(system.ls(folder, detail=False))
    return False


def _list(system: Any, pattern: str) -> dict[str, dict[str, Any]]:
    """The files that a glob matches, by URL, and what their store says of each."""
    if glob.has_magic(pattern):
        with contextlib.suppress(FileNotFoundError):
            there = system.info(pattern)
            if there["type"] == "file":
                return {system.unstrip_protocol(pattern): there}
    found = system.glob(_literal(pattern, lambda folder: _is_folder(system, folder)), detail=True)
    files = {path: facts for path, facts in found.items() if facts["type"] == "file"}
    return {system.unstrip_protocol(path): files[path] for path in sorted(files)}
