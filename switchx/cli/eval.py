"""switchx eval: a checkpoint's loss and its tasks' scores on the validation split."""

import argparse
import json

from switchx.cli.flags import add_host_arguments, load_evaluated
from switchx.terminal import remark


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `switchx eval`; those all commands share are added by the caller."""
    parser.add_argument("--step", type=int, help="checkpoint to use (default: the newest)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.epilog = (
        "Reads the whole validation split; --gin.EVAL_STEPS=N reads N batches of EVAL_BATCH_SIZE."
    )
    add_host_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Prints a table of scalars."""
    from switchx import hosts
    from switchx.api import Run
    from switchx.cli.hosts import joined
    from switchx.reports import results

    settings = load_evaluated(args)
    with joined(args, settings):
        values = Run.of(settings, args.step).evaluate()
        for line in values.pop("said", ()) if hosts.is_first() else ():
            remark(line)
        if hosts.is_first() and args.json:
            print(json.dumps(results.plain(values), allow_nan=False))
        elif hosts.is_first():
            print("\n".join(results.evaluation_lines(values)))
