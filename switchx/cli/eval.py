"""switchx eval: a checkpoint's metrics on the validation split."""

import argparse
import functools
import json
from typing import TYPE_CHECKING

from switchx.cli.flags import add_host_arguments

if TYPE_CHECKING:
    from switchx.cli.gin_config import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `switchx eval`; those all commands share are added by the caller."""
    parser.add_argument("--step", type=int, help="checkpoint to use (default: the newest)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_host_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Prints a table of scalars."""
    from switchx.cli import gin_config, hosts

    settings = gin_config.load(args)
    with hosts.joined(args, settings):
        _evaluate(settings, args)


def _evaluate(settings: "Settings", args: argparse.Namespace) -> None:
    from switchx import data, training
    from switchx.sharding import hosts, make_mesh
    from switchx.training.checks import check_run

    check_run(settings.run, make_mesh(settings.run.mesh))
    data.preflight(settings.data)
    values = training.evaluate(
        settings.run,
        settings.model_dir,
        functools.partial(data.eval_batches, settings.data),
        args.step,
    )
    if not hosts.is_first():
        return
    if args.json:
        print(json.dumps(values))
        return
    width = max(map(len, values))
    for name, value in values.items():
        shown = f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
        print(f"{name:<{width}}  {shown}")
