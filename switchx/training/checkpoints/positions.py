"""The data's position in a checkpoint: a file for each shard, written by a host that reads it."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence

import orbax.checkpoint as ocp
from etils import epath


def _name(number: int, count: int) -> str:
    return f"shard-{number:05d}-of-{count:05d}"


def _digest(seal: str, name: str, position: bytes) -> bytes:
    return hashlib.sha256(f"{seal} {name}\n".encode() + position).hexdigest().encode()


class PositionHandler(ocp.CheckpointHandler):
    """Saves and restores positions, bytes by number of shard, each behind a line with its hash.

    The hash covers the checkpoint's seal too, so that no other checkpoint's position passes.
    """

    def save(self, directory: epath.Path, args: "PositionSave") -> None:
        """Writes this host's files."""
        for number, position in args.positions.items():
            name = _name(number, args.count)
            digest = _digest(args.seal, name, position)
            (directory / name).write_bytes(digest + b"\n" + position)

    def restore(self, directory: epath.Path, args: "PositionRestore") -> dict[int, bytes]:
        """Reads the positions of this host's shards.

        Raises:
          ValueError: a file is not what was saved with this checkpoint.
        """
        return {number: self._read(directory, number, args) for number in args.shards}

    def _read(self, directory: epath.Path, number: int, args: "PositionRestore") -> bytes:
        name = _name(number, args.count)
        digest, _, position = (directory / name).read_bytes().partition(b"\n")
        if digest != _digest(args.seal, name, position):
            raise ValueError(f"position/{name} is not what was saved")
        return position


@ocp.args.register_with_handler(PositionHandler, for_save=True)
@dataclasses.dataclass
class PositionSave(ocp.args.CheckpointArgs):
    """Positions of the shards that this host saves, of `count` in all, for a checkpoint's seal."""

    positions: Mapping[int, bytes]
    count: int
    seal: str


@ocp.args.register_with_handler(PositionHandler, for_restore=True)
@dataclasses.dataclass
class PositionRestore(ocp.args.CheckpointArgs):
    """Which shards' positions this host needs, of `count` in all, from a checkpoint so sealed."""

    shards: Sequence[int]
    count: int
    seal: str
