"""A directory that is there whole or not at all."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from switchx.errors import UserError


def check(path: str, flag: str) -> Path:
    """The path, if nothing is there.

    Raises:
      UserError: something is, or nothing can be made there.
    """
    target = Path(path).expanduser().absolute()
    if target.exists() or target.is_symlink():
        raise UserError(f"{flag}={path} exists already; name a directory that does not.")
    return target


@contextlib.contextmanager
def new_directory(path: str, flag: str) -> Iterator[Path]:
    """Yields a directory to fill, which gets its name once everything in it is written.

    Raises:
      UserError: see `check`.
    """
    target = check(path, flag)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    except OSError as error:
        raise UserError(
            f"{flag}={path} cannot be made ({error.strerror}): "
            "name a directory where you may create files."
        ) from None
    try:
        yield temporary
        temporary.chmod(0o755)  # mkdtemp makes what only its owner may read
        check(path, flag)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
