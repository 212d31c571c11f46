"""Files that are made once: of many processes that try at the same time one makes it."""

import errno
import os
from pathlib import Path

from switchx.storage.conditional import ConditionalObject, check_conditional
from switchx.storage.paths import AnyPath, expanded, is_remote
from switchx.storage.writing import unfinished_beside, write_errors

# What file systems without hard links say of them.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


def create_once(path: AnyPath, content: str, setting: str) -> bool:
    """Writes a small file, with its folders, where there is none of its name.

    It needs no locks: on a disk and on NFS it is a hard link, which is made or refused whole, and
    in an object store a write on the condition that nothing is there.

    Args:
      content: should be unlike any other writer's: it tells whether a write was done whose answer
        was lost on the way.
      setting: the one that led to the path, for an error.

    Returns:
      whether it was this call that made the file.

    Raises:
      UserError: writing at that URL cannot depend on what is there.
      RunError: it cannot be written.
    """
    data = content.encode()
    if is_remote(path):
        check_conditional(path, setting)
        with write_errors(path):
            return _created_object(path, data)
    with write_errors(path):
        return _linked(Path(expanded(os.fspath(path))), data)


def _created_object(path: AnyPath, data: bytes) -> bool:
    it = ConditionalObject(path)
    there = it.read()
    if there.content is None and it.replace(data, there) is not None:
        return True
    return it.read().content == data


def _linked(path: Path, data: bytes) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = unfinished_beside(path)
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(part, path)
        return True
    except FileExistsError:
        # Over NFS that may be the answer to a second try, after the first was done.
        return part.stat().st_nlink == 2
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _opened_first(path, data)
    finally:
        part.unlink(missing_ok=True)


def _opened_first(path: Path, data: bytes) -> bool:
    """Without links a reader may see less than all of it for a moment."""
    try:
        with path.open("xb") as file:
            file.write(data)
        return True
    except FileExistsError:
        return False
