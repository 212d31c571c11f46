"""The files that a glob matches, wherever they lie."""

import contextlib
import glob
import os
import re
from collections.abc import Callable
from typing import Any

from switchx.storage.paths import check_names, expanded, is_remote
from switchx.storage.reading import LISTING_SECONDS, ask, names_in, read_errors

_HASHES = ("md5Hash", "crc32c", "ETag", "blob_id", "etag")  # of gs, s3 and hf, by their names


def list_files(pattern: str, setting: str) -> dict[str, int]:
    """Returns the files that a glob matches, by name and sorted, and the bytes of each.

    A file of exactly that name is what is meant, whatever characters are in it; of folders alike
    those that the pattern begins with. `**` is any number of folders.

    Raises:
      UserError: there is no looking there, in the name of the setting that holds the glob.
    """
    pattern = expanded(pattern)
    if is_remote(pattern):
        return ask(pattern, setting, _list_sizes, LISTING_SECONDS) or {}
    whole = os.path.isfile(pattern)
    found = [pattern] if whole else glob.glob(_literal(pattern, os.path.isdir), recursive=True)
    with read_errors(pattern, setting):
        sizes = {path: os.path.getsize(path) for path in sorted(found) if os.path.isfile(path)}
    for path in sizes:
        check_names(path, setting)
    return sizes


def list_hashes(pattern: str, setting: str) -> dict[str, str]:
    """The files that a glob at a URL matches and what changes with the content of each.

    That is the hash that its store keeps of it; a file without one is left out, as all of this
    machine are.
    """
    return (ask(pattern, setting, _hashes, LISTING_SECONDS) or {}) if is_remote(pattern) else {}


def why_none(pattern: str, setting: str) -> str:
    """Why `list_files` finds no file, as a sentence without its end.

    Raises:
      UserError: there is no looking there, in the name of the setting that holds the glob.
    """
    given, at = f"{setting}={pattern!r}", expanded(pattern)
    if names_in(at, setting):
        return (
            f"{given} is a folder: give a glob of its files, as in {pattern.rstrip('/') + '/*'!r}"
        )
    if not is_remote(at):
        if os.path.isdir(at):
            return f"{given} is an empty folder: give a glob of files"
        if os.path.exists(at):
            return f"{given} is a pipe or a device: give files, which can be read again"
        if os.path.islink(at):
            return f"{given} is a link to nothing: give a glob of files"
        names_in(os.path.dirname(re.split(r"[*?[]", at)[0]), setting)  # may not be for this user
    return f"{given} matches no file: give a glob that does"


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
