"""Where a report lies: a folder of its own, written over by the next report and by nothing else."""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from switchx import storage
from switchx.errors import UserError
from switchx.reports import charts
from switchx.reports.page import page
from switchx.reports.tables import Table, tables
from switchx.training.run_reader import check_no_part_of_a_run

HEAD = "report.json"  # by which a folder is known for a report: written first
PAGE = "report.html"
OUTPUT = "--output"


def write(document: Mapping[str, Any], output: storage.AnyPath) -> Path:
    """Writes the page, the pictures and the numbers; returns the page's path.

    Args:
      output: a folder, new, empty or of an earlier report; on this machine, gs:// or s3://.

    Raises:
      UserError: it holds something else, or cannot be written to.
      RunError: a file could not be written on the way.
    """
    folder = storage.writable_path(output, OUTPUT)
    earlier = check_output(folder)
    storage.make_directory(folder, OUTPUT)
    if storage.is_remote(folder):
        storage.check_writable(folder, OUTPUT)
    made = tables(document)
    named = {
        **document,
        "files": [PAGE, "curves.csv", *_files(made, _clockless(document), timed=False)],
        "time": {**document["time"], "files": _files(made, document["time"]["figures"], True)},
    }
    texts = {HEAD: json.dumps(named, indent=1, allow_nan=False) + "\n", PAGE: page(named)}
    texts["curves.csv"] = _curves(document)
    texts |= {f"{table.id}.csv": table.csv() for table in made}
    for name, text in texts.items():
        storage.write_whole(folder / name, text)
    for name in earlier - {*texts, *charts.draw(document, folder)}:
        storage.remove(folder / name)
    return folder / PAGE


def _clockless(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*document["figures"], *(f for law in document["laws"] for f in law["figures"])]


def _files(made: Sequence[Table], figures: Sequence[Mapping[str, Any]], timed: bool) -> list[str]:
    csvs = [f"{table.id}.csv" for table in made if table.timed == timed]
    return csvs + [f"{figure['id']}.png" for figure in figures]


def check_output(output: storage.AnyPath) -> set[str]:
    """The files of an earlier report there.

    Raises:
      UserError: something else is there, or it lies among a run's checkpoints.
    """
    folder = storage.writable_path(output, OUTPUT)
    if storage.is_file(folder, OUTPUT):
        raise UserError(f"{OUTPUT}={str(output)!r} is a file: name a folder.")
    check_no_part_of_a_run(folder, OUTPUT)
    if not storage.names_in(folder, OUTPUT):
        return set()
    try:
        found = json.loads(storage.read_if_there(folder / HEAD, OUTPUT) or b"")
        names = {*found["files"], *found["time"]["files"]}
        return {name for name in names if re.fullmatch(r"[\w.-]+\.(csv|png|html)", name)}
    except (ValueError, TypeError, LookupError):
        raise UserError(
            f"{OUTPUT}={str(output)!r} holds something that is no earlier report: name another "
            "folder."
        ) from None


def _curves(document: Mapping[str, Any]) -> str:
    """All curves as they are drawn, a line for each point."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("run", "curve", "step", "value"))
    for run in document["runs"]:
        for name, curve in run["curves"].items():
            for step, value in zip(curve["step"], curve["value"], strict=True):
                writer.writerow((run["name"], name, step, value))
    return out.getvalue()
