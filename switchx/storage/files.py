"""Files wherever they lie: on this machine, or behind any URL that fsspec knows.

Nothing here hangs: a remote call has a limit, and is tried again a few times.
"""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from switchx.data.tensorflow_loader import load_tensorflow
from switchx.errors import UserError
from switchx.storage.retries import first_line, in_time, persistently

REMOTE_SECONDS = 20.0
LISTING_SECONDS = 120.0  # a listing may be of tens of thousands of files, a page at a time
REMOTE_CHUNK = 2 * 2**20  # bytes of one request, held once for each file that is open
LOCAL_CHUNK = 2**20
T = TypeVar("T")


def is_remote(path: str) -> bool:
    """Whether a path names a file system other than the local one, as in gs://bucket/file."""
    return "://" in path


def read_bytes(path: str, setting: str) -> bytes:
    """Returns a small file's bytes.

    Raises:
      UserError: it cannot be read, in the name of the setting that led there.
    """
    if path.startswith("gs://"):
        # As seqio reads it next: TensorFlow needs no package of its own for these, and retries.
        gfile = load_tensorflow().io.gfile
        return within_limit(lambda: gfile.GFile(path, "rb").read(), path, setting)
    return b"".join(chunks(path, setting))


def chunks(path: str, setting: str) -> Iterator[bytes]:
    """Yields a file's bytes in order, some at a time; UserError where it cannot be read."""
    return _remote_chunks(path, setting) if is_remote(path) else _local_chunks(path, setting)


def list_sizes(pattern: str, setting: str) -> dict[str, int]:
    """Returns the files that a glob matches, by name, and the bytes of each.

    Raises:
      UserError: there is no looking there, in the name of the setting that holds the glob.
    """
    if not is_remote(pattern):
        gfile = load_tensorflow().io.gfile
        return {path: Path(path).stat().st_size for path in sorted(gfile.glob(pattern))}
    system, name = _file_system(pattern, setting)
    found = persistently(lambda: system.glob(name, detail=True), pattern, setting, LISTING_SECONDS)
    sizes = {system.unstrip_protocol(at): found[at]["size"] or 0 for at in found}
    return dict(sorted(sizes.items()))


def list_matches(pattern: str, setting: str) -> list[str]:
    """Returns the files a glob matches, sorted."""
    return list(list_sizes(pattern, setting))


def within_limit(read: Callable[[], T], path: str, setting: str) -> T:
    """Returns read(), tried once: for file systems that retry for minutes on their own.

    Raises:
      UserError: it failed, or took longer than REMOTE_SECONDS.
    """
    try:
        return in_time(read, REMOTE_SECONDS)
    except Exception as error:  # whatever a file system raises is one thing to the user
        raise UserError(
            f"{setting} leads to {path!r}, which cannot be read ({first_line(error)}); "
            "give a path to a copy that this machine can read."
        ) from error


def _local_chunks(path: str, setting: str) -> Iterator[bytes]:
    try:
        with Path(path).expanduser().open("rb") as file:
            while chunk := file.read(LOCAL_CHUNK):
                yield chunk
    except OSError as error:
        raise UserError(
            f"{setting} leads to {path!r}, which cannot be read ({error.strerror}); "
            "give a file that is there."
        ) from error


def _remote_chunks(path: str, setting: str) -> Iterator[bytes]:
    system, name = _file_system(path, setting)
    position, file = 0, None
    while True:
        read = functools.partial(_read_on, system, name, position, [file])
        file, chunk = persistently(read, path, setting, REMOTE_SECONDS)
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


def _file_system(url: str, setting: str) -> tuple[Any, str]:
    """Returns the file system of a URL and the URL's name in it."""
    protocol, rest = url.split("://", 1)
    try:
        system = _shared_file_system(f"{protocol}://{rest.split('/')[0]}")
    except (ImportError, ValueError) as error:
        raise UserError(
            f"{setting} leads to {url!r}, which cannot be read without another package "
            f"({first_line(error)}); install it ('switchx[cloud]' brings gcsfs for gs:// and s3fs "
            "for s3://), or give a path to a copy on this machine."
        ) from error
    return system, system._strip_protocol(url)


@functools.lru_cache(maxsize=64)
def _shared_file_system(root: str) -> Any:
    """One for all threads: fsspec would make one for each, and each would list anew."""
    import fsspec

    return fsspec.core.url_to_fs(root)[0]
