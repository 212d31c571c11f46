"""Reads a run's directory, whose format docs/run_directory.md describes. Imports nothing heavy."""

import json
from pathlib import Path
from typing import Any

from switchx import storage
from switchx.errors import UserError

FORMAT = 1  # raise it, and say in the document what changed, where a reader must know
FORMAT_FILE = "run.json"
METRICS_FILE = "metrics.jsonl"
START_FILE = "start.json"


def check_format(model_dir: str | Path) -> None:
    """Raises UserError where a run's directory is of a later format than this program knows."""
    run_form(model_dir)


def run_form(model_dir: str | Path) -> dict[str, Any]:
    """What run.json says; {} without it.

    Raises:
      UserError: it is damaged, or of a later format than this program knows.
    """
    found = storage.read_if_there(storage.as_path(model_dir) / FORMAT_FILE, "MODEL_DIR")
    if found is None:  # no run yet, or one from before formats had numbers, which is as format 1
        return {}
    try:
        form = dict(json.loads(found))
        number, by = (form[name] for name in ("format", "switchx"))
    except (ValueError, TypeError, KeyError, RecursionError):
        form, number, by = {}, None, None
    if not isinstance(number, int):
        raise damaged_form(model_dir)
    if number > FORMAT:
        raise UserError(
            f"MODEL_DIR={str(model_dir)!r} is of format {number}, and this switchx knows those up "
            f"to {FORMAT}: use switchx {by} or a later one."
        )
    return form


def run_around(path: Path, setting: str) -> Path | None:
    """The run directory to whose checkpoints or config.gin the path of a setting leads."""
    while path != path.parent:
        run = path.parent
        if path.name in ("checkpoints", "config.gin") and storage.is_file(
            run / FORMAT_FILE, setting
        ):
            return run
        path = run
    return None


def check_no_part_of_a_run(path: Path, setting: str) -> None:
    """Raises UserError for a new place among a run's checkpoints, where it would be one of them."""
    run = run_around(path if storage.is_remote(path) else path.absolute(), setting)
    if run is not None:
        raise UserError(
            f"{setting}={str(path)!r} lies in the run directory {str(run)!r}: name that for the "
            "run itself, or a directory elsewhere."
        )


def damaged_form(model_dir: str | Path) -> UserError:
    """The error for a run.json that says what no run wrote."""
    return UserError(
        f"MODEL_DIR={str(model_dir)!r} has a damaged {FORMAT_FILE}: remove that file, or name "
        "another directory."
    )


def read_start(model_dir: str | Path) -> dict[str, Any]:
    """What start.json says; {} before the first start.

    Raises:
      UserError: it is damaged.
    """
    path = storage.as_path(model_dir, "MODEL_DIR") / START_FILE
    try:
        found = json.loads(storage.read_if_there(path, "MODEL_DIR") or b"{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{path} is damaged: remove the run's directory, or name another one.")
    return found


def metric_rows(model_dir: str | Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl in order; none without the file.

    Values that were not finite are None. A last line cut short by a crash is left out.

    Raises:
      UserError: the file is damaged elsewhere, or the directory is of a later format.
    """
    check_format(model_dir)
    path = storage.as_path(model_dir) / METRICS_FILE
    return parse_rows(storage.read_if_there(path, "MODEL_DIR") or b"", path)


def parse_rows(content: bytes, path: Path) -> list[dict[str, Any]]:
    """The rows in the content of a metrics.jsonl; see `metric_rows`."""
    lines = content.splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        row = _row(line)
        if row is not None:
            rows.append(row)
        elif number < len(lines):
            raise UserError(f"{path} is damaged: line {number} is no row of metrics; remove it.")
    return rows


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_row = isinstance(row, dict) and isinstance(row.get("step"), int) and "split" in row
    return row if is_row else None
