"""Where do files lie? What every user's or run's file is opened, written and locked through.

A path is a string or a `Path`; a string with a scheme (gs://bucket/file) is another file system's.
A run lives on this machine, at gs:// or at s3://; what is only read may be wherever fsspec reaches.
Each function says what it guarantees and not by which means, since those differ: no file system but
a local one can rename, append or lock.

- `as_path`, `writable_path`, `store_path`, `local_path`, `expanded`, `is_remote`: what a user's
  path means, and whether it will do.
- `read_bytes`, `read_if_there`, `chunks`, `list_files`, `why_none`, `list_hashes`,
  `names_in`, `sizes_in`, `is_file`, `is_folder`, `check_bucket`: what is there.
- `download`, `read_parts`, `open_to_seek`: a large file from a URL, some bytes of several, or one
  to move about in.
- `write_whole`, `whole_file`, `new_directory`, `new_place`, `copy_folder`: there whole or not at
  all.
- `create_once`: of many that make it one does, without a lock.
- `open_appender`: complete up to the last flush, at a URL up to the last period.
- `exclusive_lock`: one process at a time; at a URL by a lease.
- `this_process`, `is_gone`, `record_of`: who holds something, and whether that has ended.
- `with_retries`, `in_time`: calls that fail for a while, or hang.
- `with_checksum`, `checked`, `hash_of`: JSON that tells whether it is what was written.
- `kvstore_spec`: how TensorStore is told of a URL.

What cannot be read is a `UserError` that names the setting that led there; what cannot be written
on the way is a `RunError`. `explain` has the few words that say why.
"""

from switchx.storage.appending import Appender, open_appender
from switchx.storage.conditional import kvstore_spec
from switchx.storage.copying import copy_folder
from switchx.storage.creating import create_once
from switchx.storage.directories import (
    check_new,
    check_new_file,
    check_writable,
    make_directory,
    new_directory,
    new_place,
    set_aside,
)
from switchx.storage.globs import list_files, list_hashes, why_none
from switchx.storage.holders import InUseError, is_gone, record_of, this_process
from switchx.storage.locks import exclusive_lock
from switchx.storage.parts import Part, read_parts
from switchx.storage.paths import (
    AnyPath,
    as_path,
    expanded,
    is_remote,
    local_path,
    store_path,
    writable_path,
)
from switchx.storage.reading import (
    as_text,
    check_bucket,
    chunks,
    download,
    is_file,
    is_folder,
    names_in,
    read_bytes,
    read_errors,
    read_if_there,
    read_text,
    size_of,
    sizes_in,
)
from switchx.storage.retries import in_time, with_retries
from switchx.storage.sealed import checked, hash_of, with_checksum
from switchx.storage.seeking import open_to_seek
from switchx.storage.trouble import explain
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
    "InUseError",
    "Part",
    "as_path",
    "as_text",
    "check_bucket",
    "check_new",
    "check_new_file",
    "check_writable",
    "checked",
    "chunks",
    "copy_folder",
    "create_once",
    "download",
    "exclusive_lock",
    "expanded",
    "explain",
    "hash_of",
    "in_time",
    "is_file",
    "is_folder",
    "is_gone",
    "is_remote",
    "kvstore_spec",
    "list_files",
    "list_hashes",
    "local_path",
    "make_directory",
    "names_in",
    "new_directory",
    "new_place",
    "open_appender",
    "open_to_seek",
    "read_bytes",
    "read_errors",
    "read_if_there",
    "read_parts",
    "read_text",
    "record_of",
    "remove",
    "remove_unfinished",
    "set_aside",
    "size_of",
    "sizes_in",
    "store_path",
    "this_process",
    "whole_file",
    "why_none",
    "with_checksum",
    "with_retries",
    "writable_path",
    "write_errors",
    "write_whole",
]
