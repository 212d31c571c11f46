"""switchx data check: every record of a prepared set, and of logits beside it, is verified."""

import argparse
from typing import TYPE_CHECKING, Any

from switchx.errors import RunError, UserError
from switchx.terminal import Progress, counted, table

if TYPE_CHECKING:
    from switchx.data import DataConfig
    from switchx.settings import Settings

_SHOWN_PROBLEMS = 20


def run(args: argparse.Namespace, settings: "Settings") -> None:
    """Prints a table of each kind; raises RunError where anything is wrong."""
    if settings.data.prepared_dir is None:
        raise UserError("PREPARED_DIR is not set: give the folder of the prepared set to check.")
    problems = _check_sets(settings.data)
    in_logits = _check_logits(settings.data)
    for problem in (problems + in_logits)[:_SHOWN_PROBLEMS]:
        print(problem)
    if problems or in_logits:
        count = len(problems) + len(in_logits)
        more = count - _SHOWN_PROBLEMS
        task = "remove the folder of the task and prepare it again, or copy its files again"
        logits = "remove these files and run `switchx data teach` again, or copy them again"
        raise RunError(
            f"PREPARED_DIR={settings.data.prepared_dir!r} has {counted(count, 'problem')}"
            f"{f' ({more:,} more)' if more > 0 else ''}: {task if problems else logits}."
        )
    print("nothing is wrong")


def _check_sets(config: "DataConfig") -> list[str]:
    from switchx.data.prepared.checking import check_split
    from switchx.data.prepared.sets import set_folder, set_infos

    rows: list[tuple[Any, ...]] = [
        ("task", "split", "shards", "records", "broken", "tokens", "short rows", "sentinels")
    ]
    problems = []
    for info in set_infos(config):
        folder = set_folder(config, info.plan.task)
        for split in info.shards:
            with Progress(info.records(split), "records") as progress:
                report = check_split(folder, info, split, progress.advance)
            counts = (report.records, report.broken, report.tokens, report.short, report.sentinels)
            rows.append((info.plan.task, split, len(info.shards[split]), *counts))
            problems += report.problems
    print("\n".join(table(rows)))
    return problems


def _check_logits(config: "DataConfig") -> list[str]:
    """Of a teacher, whoever it was; what is unfinished is said, and nothing is wrong with it."""
    from switchx.data.taught.checking import check_logits, names_of_sets
    from switchx.data.taught.logit_set import folder_of_set, read_set

    rows: list[tuple[Any, ...]] = [
        ("logits", "teacher", "step", "top k", "shards", "examples", "broken", "targets")
    ]
    problems = []
    whole, unfinished = names_of_sets(config)
    for name in whole:
        found = read_set(config, name)
        with Progress(found.examples, "examples") as progress:
            report = check_logits(folder_of_set(config, name), found, progress.advance)
        teacher, shards = found.plan.teacher, len(found.shards)
        counts = (found.plan.top_k, shards, report.records, report.broken, report.tokens)
        rows.append((name, teacher["path"], teacher["step"], *counts))
        problems += report.problems
    if whole:
        print("\n".join(table(rows)))
    for name in unfinished:
        print(f"logits {name} are unfinished: run `switchx data teach` again to go on")
    return problems
