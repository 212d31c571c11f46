"""JSON that says by a hash of itself whether it is what was written."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_CHECKSUM = "checksum"


def hash_of(content: Mapping[str, Any]) -> str:
    """SHA-256 of JSON in its one form, whatever the order of the names."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def with_checksum(content: Mapping[str, Any]) -> str:
    """The text of a file of this content and its checksum, for `checked`."""
    return json.dumps({**content, _CHECKSUM: hash_of(content)}, indent=1) + "\n"


def checked(text: bytes, format: int) -> dict[str, Any]:
    """The content of a file that `with_checksum` made.

    Raises:
      ValueError, TypeError, KeyError, AttributeError, RecursionError: it is damaged, or its
        "format" is another.
    """
    read: dict[str, Any] = json.loads(text)
    checksum = read.pop(_CHECKSUM)
    if read["format"] != format:
        raise ValueError(f"format {read['format']!r}, not {format}")
    if checksum != hash_of(read):
        raise ValueError("its checksum is another")
    return read
