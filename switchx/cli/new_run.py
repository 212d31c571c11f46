"""A directory that a command makes: --model_dir, and --from_dir where of another run."""

import argparse
from pathlib import Path

from switchx import storage
from switchx.errors import UserError


def check_new_run(args: argparse.Namespace) -> None:
    """Raises UserError unless --model_dir names a place where nothing is yet."""
    if args.model_dir is None:
        raise UserError("--model_dir is required: name the run directory to write.")
    check_new_folder(args.model_dir, "--model_dir")


def check_new_folder(path: str, flag: str) -> None:
    """Raises UserError unless nothing is there, and it is no place among a run's checkpoints."""
    storage.check_new(path, flag)
    from switchx.training.run_reader import check_no_part_of_a_run

    check_no_part_of_a_run(storage.as_path(path, flag), flag)


def saved_config(from_dir: str) -> Path:
    """config.gin of the run that --from_dir names.

    Raises:
      UserError: no run was started there, or it has no checkpoint.
    """
    saved = storage.store_path(from_dir, "--from_dir") / "config.gin"
    if not storage.is_file(saved, "--from_dir"):
        from switchx.training.run_reader import run_around

        around = run_around(saved.parent, "--from_dir")
        if around is not None:
            raise UserError(f"--from_dir={from_dir} is no run's directory: name {str(around)!r}.")
        raise UserError(f"--from_dir={from_dir} holds no config.gin, so no run was started there.")
    if not storage.is_folder(saved.parent / "checkpoints", "--from_dir"):
        raise UserError(f"--from_dir={from_dir} holds no checkpoint.")
    return saved
