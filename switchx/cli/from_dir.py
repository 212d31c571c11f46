"""The run that a command makes another run of: --from_dir."""

from pathlib import Path

from switchx import storage
from switchx.errors import UserError


def saved_config(from_dir: str) -> Path:
    """Its config.gin.

    Raises:
      UserError: no run was started there, or it has no checkpoint.
    """
    saved = storage.store_path(from_dir, "--from_dir") / "config.gin"
    if not storage.is_file(saved, "--from_dir"):
        raise UserError(f"--from_dir={from_dir} holds no config.gin, so no run was started there.")
    if not storage.is_folder(saved.parent / "checkpoints", "--from_dir"):
        raise UserError(f"--from_dir={from_dir} holds no checkpoint.")
    return saved
