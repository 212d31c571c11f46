"""switchx eval: a checkpoint's metrics on the validation split."""

import argparse
import functools
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from switchx.cli.flags import add_host_arguments

if TYPE_CHECKING:
    from switchx.settings.loading import Settings

_COLUMNS = ["loss", "accuracy", "perplexity", "unigram_entropy"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `switchx eval`; those all commands share are added by the caller."""
    parser.add_argument("--step", type=int, help="checkpoint to use (default: the newest)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_host_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Prints a table of scalars."""
    from switchx.cli import hosts
    from switchx.settings import loading as gin_config

    settings = gin_config.load(args)
    with hosts.joined(args, settings):
        _evaluate(settings, args)


def _evaluate(settings: "Settings", args: argparse.Namespace) -> None:
    from switchx import data, evaluation, hosts
    from switchx.sharding import make_mesh
    from switchx.training.checks import check_run

    check_run(settings.run, make_mesh(settings.run.mesh))
    data.preflight(settings.data)
    values = evaluation.evaluate(
        settings.run,
        settings.model_dir,
        functools.partial(data.eval_batches, settings.data),
        args.step,
        data.task_eval_batches(settings.data),
    )
    if not hosts.is_first():
        return
    if args.json:
        print(json.dumps(values))
        return
    tasks = values.pop("tasks", {})
    width = max(map(len, values))
    for name, value in values.items():
        shown = f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
        print(f"{name:<{width}}  {shown}")
    for line in _table(tasks):
        print(line)


def _table(tasks: Mapping[str, Mapping[str, float]]) -> list[str]:
    """A line for each task that was evaluated alone."""
    if not tasks:
        return []
    width = max(len(name) for name in (*tasks, "task"))
    shown = [[f"{values[column]:.4f}" for column in _COLUMNS] for values in tasks.values()]
    rows = [_COLUMNS, *shown]
    return [""] + [
        f"{name:<{width}}  " + "  ".join(f"{cell:>15}" for cell in row)
        for name, row in zip(("task", *tasks), rows, strict=True)
    ]
