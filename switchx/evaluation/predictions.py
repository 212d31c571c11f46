"""What a model answered, as JSON lines in its run's directory."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from switchx import storage

FOLDER = "predictions"


def path_of(model_dir: str | Path, task: str, step: int) -> Path:
    """The file of a task's answers at a step."""
    return storage.as_path(model_dir, "MODEL_DIR") / FOLDER / task / f"{step}.jsonl"


def write(model_dir: str | Path, task: str, step: int, lines: Iterable[Mapping[str, Any]]) -> Path:
    """Writes a line for each example, the whole file or none of it.

    Raises:
      UserError, RunError: it cannot be written.
    """
    path = path_of(model_dir, task, step)
    text = "".join(f"{json.dumps(line, ensure_ascii=False, allow_nan=False)}\n" for line in lines)
    storage.make_directory(path.parent, "MODEL_DIR")
    storage.write_whole(path, text)
    return path
