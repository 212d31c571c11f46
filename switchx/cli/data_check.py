"""switchx data check: every record of a prepared set, read and verified."""

import argparse
from typing import TYPE_CHECKING, Any

from switchx.errors import RunError, UserError
from switchx.terminal import Progress, table

if TYPE_CHECKING:
    from switchx.settings import Settings

_SHOWN_PROBLEMS = 20


def run(args: argparse.Namespace, settings: "Settings") -> None:
    """Prints a table; raises RunError where anything is wrong."""
    from switchx.data.prepared.checking import check_split
    from switchx.data.prepared.sets import set_folder, set_infos

    if settings.data.prepared_dir is None:
        raise UserError("PREPARED_DIR is not set: give the folder of the prepared set to check.")
    rows: list[tuple[Any, ...]] = [
        ("task", "split", "shards", "records", "broken", "tokens", "short rows", "sentinels")
    ]
    problems = []
    for info in set_infos(settings.data):
        folder = set_folder(settings.data, info.plan.task)
        for split in info.shards:
            with Progress(info.records(split), "records") as progress:
                report = check_split(folder, info, split, progress.advance)
            counts = (report.records, report.broken, report.tokens, report.short, report.sentinels)
            rows.append((info.plan.task, split, len(info.shards[split]), *counts))
            problems += report.problems
    print("\n".join(table(rows)))
    for problem in problems[:_SHOWN_PROBLEMS]:
        print(problem)
    if problems:
        more = len(problems) - _SHOWN_PROBLEMS
        raise RunError(
            f"PREPARED_DIR {settings.data.prepared_dir!r} has {len(problems):,} problems"
            f"{f' ({more:,} more)' if more > 0 else ''}: remove the folder of the task and prepare "
            "it again, or copy its files again."
        )
    print("nothing is wrong")
