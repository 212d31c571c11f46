"""A plan's folder: plan.txt, plan.json and plan.png, and no other plan's."""

import itertools
import json
from pathlib import Path
from typing import Any

from switchx import storage
from switchx.errors import UserError
from switchx.planning import picture
from switchx.planning.plan import Plan
from switchx.training.run_reader import check_no_part_of_a_run

_IDENTITY = ".plan"  # in a plan's folder: which plan it is


def choose_directory(output: str | None, name: str, identity: str) -> Path:
    """A folder that is new or holds the same plan: no other plan is overwritten.

    Args:
      output: the folder that was asked for; None is one below plans/, of this name or a like one.
      identity: what makes it the same; a file of the folder keeps it.

    Raises:
      UserError: the folder that was asked for is another plan's, or among a run's checkpoints.
    """
    if output is None:
        names = itertools.chain([name], (f"{name}-{i}" for i in itertools.count(2)))
        return next(d for d in (Path("plans") / n for n in names) if _is_free(d, identity))
    directory = storage.writable_path(output, "--output")
    check_no_part_of_a_run(directory, "--output")
    if storage.is_remote(directory):
        storage.check_writable(directory, "--output")
    if not _is_free(directory, identity):
        raise UserError(
            f"--output={output} holds another plan or something else: name a new folder."
        )
    return directory


def _is_free(directory: Path, identity: str) -> bool:
    if storage.is_file(directory, "--output"):
        return False
    mark = storage.read_if_there(directory / _IDENTITY, "--output")
    if mark is not None:
        return mark.decode(errors="replace").strip() == identity
    return not storage.names_in(directory, "--output")


def save(
    directory: Path, identity: str, text: str, values: dict[str, Any], plan: Plan | None
) -> list[Path]:
    """Writes the folder, without a picture where there is no plan; returns its files."""
    written = {_IDENTITY: identity, "plan.txt": text, "plan.json": json.dumps(values, indent=2)}
    for name, content in written.items():
        storage.write_whole(directory / name, content + "\n")
    if plan is not None:
        picture.draw(plan, directory / "plan.png")
    names = storage.names_in(directory, "--output")
    return [directory / name for name in sorted(names) if name.startswith("plan.")]
