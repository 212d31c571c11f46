"""What a user's path means: a place on this machine, or a URL of another file system."""

import contextlib
import difflib
import functools
import os
import re
import urllib.parse
from pathlib import Path, PurePosixPath
from typing import Any

from switchx.errors import UserError, first_line

AnyPath = str | os.PathLike[str]
STORES = ("gs", "s3")  # where a run can live; other file systems are only read
_MOST_BYTES = 255  # of a name, on all file systems in use
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


class Url(os.PathLike[str]):
    """A URL to join names to; `str` gives it back. No character in it means anything but /."""

    def __init__(self, text: str) -> None:
        scheme, rest = text.split("://", 1)
        self._text = f"{scheme}://{rest.rstrip('/')}"

    def __truediv__(self, name: AnyPath) -> "Url":
        return Url(f"{self._text}/{os.fspath(name)}")

    @property
    def name(self) -> str:
        """The last name in it; "" of a bucket."""
        return key_of(self).rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The last name without what follows its last dot."""
        return PurePosixPath(self.name).stem

    @property
    def parent(self) -> "Url":
        """The folder that it lies in; of a bucket the bucket."""
        return Url(self._text[: -len(self.name)]) if self.name else self

    def with_name(self, name: str) -> "Url":
        """Another name in the same folder."""
        return self.parent / name

    def __fspath__(self) -> str:
        return self._text

    __str__ = __fspath__

    def __repr__(self) -> str:
        return f"Url({self._text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Url) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)


def is_remote(path: AnyPath) -> bool:
    """Whether a path names another file system than the local one, as gs://bucket/file does."""
    scheme = _SCHEME.match(os.fspath(path))
    return scheme is not None and scheme[1].lower() != "file"


def expanded(path: str) -> str:
    """A path as its user means it: ~ is the home folder, and file:///x the local x.

    Shells leave both as they are in --flag=~/x.
    """
    scheme = _SCHEME.match(path)
    if scheme is None:
        return os.path.expanduser(path)
    if scheme[1].lower() != "file":
        return path
    host, _, rest = path[scheme.end() :].partition("/")
    # A file on another machine is nobody's; what is wrong is said where it is looked for.
    return "/" + urllib.parse.unquote(rest) if host in ("", "localhost") else path


def as_path(path: AnyPath, setting: str = "MODEL_DIR") -> Path:
    """A path to join names to with /: of this machine, or of the file system that its URL names.

    Looks at nothing and makes nothing. A URL's is a `Url`, of which a `Path` has all the methods.

    Raises:
      UserError: the URL's scheme is unknown or its package is missing, or no file could have this
        name.
    """
    text = expanded(os.fspath(path))
    if not is_remote(text):
        return local_path(text, setting)
    if not isinstance(path, Url):
        _check_url(text, setting)
    return Url(text)  # type: ignore[return-value]  # of Path's, callers use what Url has


def writable_path(path: AnyPath, setting: str) -> Path:
    """`as_path` of a place that will be written to: this machine, gs:// or s3://.

    Raises:
      UserError: it is elsewhere, nobody is known here who could write there, or as `as_path`.
    """
    found = _in_store(path, setting, "written to")
    if is_remote(found) and scheme_of(found) == "gs" and not _has_google_account():
        raise UserError(
            f"{setting}={os.fspath(path)!r} cannot be written to without an account: run "
            "`gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to "
            "a key's file."
        )
    return found


def store_path(path: AnyPath, setting: str) -> Path:
    """`as_path` of a place whose arrays TensorStore reads: this machine, gs:// or s3://.

    Raises:
      UserError: it is elsewhere, or as `as_path`.
    """
    return _in_store(path, setting, "read part by part")


def _in_store(path: AnyPath, setting: str, done: str) -> Path:
    found = as_path(path, setting)
    if is_remote(found) and scheme_of(found) not in STORES:
        raise UserError(
            f"{setting}={os.fspath(path)!r} cannot be {done}: name a place on this machine, at "
            "gs:// or at s3://."
        )
    return found


def local_path(path: AnyPath, setting: str) -> Path:
    """A path that has to be on this machine. Looks at nothing and makes nothing.

    Raises:
      UserError: it is a URL, or no name that a file could have.
    """
    text = expanded(os.fspath(path))
    scheme = _SCHEME.match(text)
    if scheme:
        raise UserError(
            f"{setting}={os.fspath(path)!r} is a URL, and {setting} cannot be at {scheme[0]}: name "
            "a path on this machine or on a mounted file system."
        )
    if not text or "\0" in text:
        raise UserError(f"{setting}={os.fspath(path)!r} names no file: give a path.")
    check_names(text, setting)
    mistaken = re.match(r"(gs|s3):/+(.*)", text)
    if mistaken:
        raise UserError(
            f"{setting}={os.fspath(path)!r} is neither a URL nor a path: write "
            f"{mistaken[1]}://{mistaken[2]} or ./{text}."
        )
    return Path(text)


def check_names(path: str, setting: str) -> None:
    """Raises UserError for a name that no file has, or that not all libraries take."""
    with contextlib.suppress(UnicodeEncodeError):
        if max(map(len, path.encode().split(b"/"))) <= _MOST_BYTES:
            return
    raise UserError(
        f"{setting}={path!r} has a name that is not UTF-8 or too long: give names of at most "
        f"{_MOST_BYTES} bytes."
    )


def scheme_of(url: AnyPath) -> str:
    """The scheme of a URL, as "gs"."""
    return os.fspath(url).split("://", 1)[0].lower()


def bucket_of(url: AnyPath) -> str:
    """The first name of a URL, which is an object store's bucket."""
    return os.fspath(url).split("://", 1)[1].split("/", 1)[0]


def key_of(url: AnyPath) -> str:
    """A URL's name within its bucket."""
    return os.fspath(url).split("://", 1)[1].partition("/")[2].rstrip("/")


def file_system(url: AnyPath) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the URL's name in it.

    Raises:
      ImportError: there is none, or its package is not installed.
    """
    try:
        system = _shared(f"{scheme_of(url)}://{bucket_of(url)}")
    except (ImportError, ValueError) as error:
        brings = "; pip install 'switchx[cloud]' brings it" * (scheme_of(url) in STORES)
        raise ImportError(f"{first_line(error)}{brings}") from error
    if scheme_of(url) in STORES:  # as it stands: no #, ? or % in a name means anything
        return system, f"{bucket_of(url)}/{key_of(url)}".rstrip("/")
    return system, system._strip_protocol(os.fspath(url))


def _has_google_account() -> bool:
    return bool(os.environ.get("STORAGE_EMULATOR_HOST")) or _finds_google_account()


@functools.lru_cache(maxsize=1)
def _finds_google_account() -> bool:
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError

    try:
        google.auth.default()
    except DefaultCredentialsError:
        return False
    return True


def _check_url(url: str, setting: str) -> None:
    import fsspec

    scheme, known = scheme_of(url), set(fsspec.available_protocols())
    if scheme not in known or scheme in ("local", "file"):
        close = difflib.get_close_matches(scheme, ("gs", "s3", "https", "hf", "file"), n=1)
        raise UserError(
            f"{setting}={url!r} has a scheme that is not known: name a path on this machine, or a "
            f"URL as {f'{close[0]}://' if close else 'gs:// or s3://'}."
        )
    if not bucket_of(url):
        raise UserError(f"{setting}={url!r} names no bucket: write {scheme}://BUCKET/NAME.")
    try:
        _google() if scheme == "gs" else fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        raise UserError(
            f"{setting}={url!r} needs a package that is not installed ({first_line(error)}): "
            "install it."
        ) from None


@functools.lru_cache(maxsize=64)
def _shared(root: str) -> Any:
    """One for all threads: fsspec would make one for each, and each would list anew."""
    import fsspec

    if scheme_of(root) not in STORES:
        return fsspec.core.url_to_fs(root)[0]
    if scheme_of(root) != "gs":
        return fsspec.core.url_to_fs(root, use_listings_cache=False)[0]
    # Where there is no account it would look for one for long before it reads as nobody.
    nobody = {} if _has_google_account() else {"token": "anon"}
    return _google()(use_listings_cache=False, **nobody)


def _google() -> Any:
    """The file system of gs:// that does not ask Google before each call about a bucket's folders.

    A run has no use for the answer, to a request more, of a permission more. gcsfs decides by a
    variable when it is imported, and whoever did that first need not have set it.
    """
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    from gcsfs.core import GCSFileSystem

    return GCSFileSystem
