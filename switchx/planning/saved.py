"""A plan's folder: plan.txt, plan.json and plan.png, and no other plan's."""

import itertools
import json
from pathlib import Path
from typing import Any

from switchx.errors import UserError
from switchx.planning import picture
from switchx.planning.plan import Plan

_IDENTITY = ".plan"  # in a plan's folder: which plan it is


def choose_directory(output: str | None, name: str, identity: str) -> Path:
    """A folder that is new or holds the same plan: no other plan is overwritten.

    Args:
      output: the folder that was asked for; None is one below plans/, of this name or a like one.
      identity: what makes it the same; a file of the folder keeps it.

    Raises:
      UserError: the folder that was asked for is another plan's.
    """
    if output is None:
        names = itertools.chain([name], (f"{name}-{i}" for i in itertools.count(2)))
        return next(d for d in (Path("plans") / n for n in names) if _is_free(d, identity))
    directory = Path(output).expanduser()
    if not _is_free(directory, identity):
        raise UserError(f"--output={output} holds another plan: name a new folder.")
    return directory


def _is_free(directory: Path, identity: str) -> bool:
    mark = directory / _IDENTITY
    if mark.is_file():
        return mark.read_text().strip() == identity
    return not directory.exists() or (directory.is_dir() and not any(directory.iterdir()))


def save(
    directory: Path, identity: str, text: str, values: dict[str, Any], plan: Plan | None
) -> list[Path]:
    """Writes the folder, without a picture where there is no plan; returns its files."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / _IDENTITY).write_text(identity + "\n")
    (directory / "plan.txt").write_text(text + "\n")
    (directory / "plan.json").write_text(json.dumps(values, indent=2) + "\n")
    if plan is not None:
        picture.draw(plan, directory / "plan.png")
    return sorted(directory.glob("plan.*"))
