"""What a user's path means: a place on this machine, or a URL of another file system."""

import functools
import os
import re
from pathlib import Path
from typing import Any

from switchx.errors import UserError, first_line

AnyPath = str | Path
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def is_remote(path: AnyPath) -> bool:
    """Whether a path names another file system than the local one, as gs://bucket/file does."""
    return _SCHEME.match(str(path)) is not None


def expanded(path: str) -> str:
    """The path with a leading ~ replaced by the home folder, which shells leave in --flag=~/x."""
    return path if is_remote(path) else os.path.expanduser(path)


def local_path(path: AnyPath, setting: str) -> Path:
    """A path that has to be on this machine. Looks at nothing and makes nothing.

    Raises:
      UserError: it is a URL, or no name that a file could have.
    """
    text = str(path)
    scheme = _SCHEME.match(text)
    if scheme:
        raise UserError(
            f"{setting}={text!r} is a URL, and {setting} cannot be at {scheme[0]} yet: name a path "
            "on this machine or on a mounted file system."
        )
    if not text or "\0" in text:
        raise UserError(f"{setting}={text!r} names no file: give a path.")
    return Path(expanded(text))


def file_system(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the URL's name in it.

    Raises:
      ImportError: there is none, or its package is not installed.
    """
    scheme, rest = url.split("://", 1)
    try:
        system = _shared(f"{scheme}://{rest.split('/')[0]}")
    except (ImportError, ValueError) as error:
        raise ImportError(
            f"{first_line(error)}; 'switchx[cloud]' brings gcsfs for gs:// and s3fs for s3://"
        ) from error
    return system, system._strip_protocol(url)


@functools.lru_cache(maxsize=64)
def _shared(root: str) -> Any:
    """One for all threads: fsspec would make one for each, and each would list anew."""
    import fsspec

    return fsspec.core.url_to_fs(root)[0]
