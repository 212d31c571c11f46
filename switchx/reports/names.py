"""What runs are called in a comparison: as short as tells them apart."""

import os
from collections.abc import Sequence

from switchx import storage
from switchx.errors import UserError


def of_directories(directories: Sequence[str]) -> dict[str, str]:
    """Each directory by its name: its last part, or more of them where two would be the same.

    Raises:
      UserError: there is one directory alone, or one of them twice.
    """
    places = {directory: _whole(directory) for directory in directories}
    if len(directories) < 2:
        raise UserError(
            f"RUN={directories[0]!r} is one run alone, and a comparison is of two or more: name "
            "another run's directory too."
        )
    for directory in directories:
        twice = [other for other in directories if places[other] == places[directory]]
        if len(twice) > 1:
            raise UserError(f"RUN={directory!r} is named twice: name each run's directory once.")
    return {_name(places[d], list(places.values())): d for d in directories}


def _whole(directory: str) -> str:
    path = storage.as_path(directory, "RUN")
    return str(path) if storage.is_remote(path) else os.path.realpath(path)


def _name(path: str, others: Sequence[str]) -> str:
    """The fewest last parts of a path that no other one ends in."""
    parts = path.rstrip("/").split("/")
    for count in range(1, len(parts) + 1):
        tail = parts[-count:]
        if sum(other.rstrip("/").split("/")[-count:] == tail for other in others) == 1:
            return "/".join(tail)
    return path
