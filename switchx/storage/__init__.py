"""Where do files lie? What every user's or run's file is opened, written and locked through.

A path is a string or a `Path`; a string with a scheme (gs://bucket/file) is another file system's.
Each function says what it guarantees and not by which means, since those differ: no file system but
a local one can rename, append or lock.

- `local_path`, `expanded`, `is_remote`: what a user's path means, and whether it will do.
- `read_bytes`, `read_if_there`, `chunks`, `list_files`, `names_in`, `is_file`: reading.
- `write_whole`, `whole_file`, `new_directory`: there whole or not at all.
- `open_appender`: complete up to the last flush.
- `exclusive_lock`: one process at a time.
- `with_retries`, `in_time`: calls that fail for a while, or hang.

What cannot be read is a `UserError` that names the setting that led there; what cannot be written
on the way is a `RunError`.
"""

from switchx.storage.appending import Appender, open_appender
from switchx.storage.directories import check_new, make_directory, new_directory, set_aside
from switchx.storage.locks import exclusive_lock
from switchx.storage.paths import AnyPath, expanded, is_remote, local_path
from switchx.storage.reading import (
    chunks,
    is_file,
    list_files,
    names_in,
    read_bytes,
    read_errors,
    read_if_there,
    read_text,
    size_of,
)
from switchx.storage.retries import in_time, with_retries
from switchx.storage.writing import (
    remove,
    remove_unfinished,
    whole_file,
    write_errors,
    write_whole,
)

__all__ = [
    "AnyPath",
    "Appender",
    "check_new",
    "chunks",
    "exclusive_lock",
    "expanded",
    "in_time",
    "is_file",
    "is_remote",
    "list_files",
    "local_path",
    "make_directory",
    "names_in",
    "new_directory",
    "open_appender",
    "read_bytes",
    "read_errors",
    "read_if_there",
    "read_text",
    "remove",
    "remove_unfinished",
    "set_aside",
    "size_of",
    "whole_file",
    "with_retries",
    "write_errors",
    "write_whole",
]
