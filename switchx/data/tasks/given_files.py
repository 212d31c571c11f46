"""The files that TASK_FILES names, as they are found and as errors name them."""

from switchx import storage
from switchx.errors import UserError


def setting_of(split: str) -> str:
    """What names the files of a split."""
    return f"TASK_FILES[{split!r}]"


def check_there(found: str, split: str, source: str | None = None) -> dict[str, int]:
    """The files of a glob and their bytes.

    Args:
      source: a glob of such files where they are published, if that is known.

    Raises:
      UserError: there is none.
    """
    setting = setting_of(split)
    files = storage.list_files(found, setting)
    if files:
        return files
    come_from = f"; this set is published as {source!r}" if source else ""
    raise UserError(f"{storage.why_none(found, setting)}{come_from}.")
