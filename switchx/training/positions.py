"""The data's position in a checkpoint: a file for each shard, written by a host that reads it."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

import orbax.checkpoint as ocp
from etils import epath

from switchx.errors import UserError

_NAME = re.compile(r"shard-\d{5}-of-(\d{5})")


def _name(number: int, count: int) -> str:
    return f"shard-{number:05d}-of-{count:05d}"


class PositionHandler(ocp.CheckpointHandler):
    """Saves and restores positions, bytes by number of shard."""

    def save(self, directory: epath.Path, args: "PositionSave") -> None:
        """Writes this host's files."""
        for number, position in args.positions.items():
            (directory / _name(number, args.count)).write_bytes(position)

    def restore(self, directory: epath.Path, args: "PositionRestore") -> dict[int, bytes]:
        """Reads the positions of this host's shards; {} where none was saved.

        Raises:
          UserError: the data was cut into another number of shards.
        """
        counts = {int(found[1]) for p in directory.iterdir() if (found := _NAME.fullmatch(p.name))}
        if not counts:
            return {}
        if counts != {args.count}:
            raise UserError(
                f"DATA_SHARDS is {args.count} but the data position in the checkpoint was saved "
                f"with {counts.pop()}; give that again or start a new MODEL_DIR."
            )
        return {
            number: (directory / _name(number, args.count)).read_bytes() for number in args.shards
        }


@ocp.args.register_with_handler(PositionHandler, for_save=True)
@dataclasses.dataclass
class PositionSave(ocp.args.CheckpointArgs):
    """Positions of the shards that this host saves, of `count` shards in all."""

    positions: Mapping[int, bytes]
    count: int


@ocp.args.register_with_handler(PositionHandler, for_restore=True)
@dataclasses.dataclass
class PositionRestore(ocp.args.CheckpointArgs):
    """Which shards' positions this host needs, of `count` shards in all."""

    shards: Sequence[int]
    count: int
