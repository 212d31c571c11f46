"""switchx prune: a trained model of a part of its experts, those that a task's tokens use."""

import argparse
import dataclasses
import json

from switchx.cli.flags import request
from switchx.cli.new_run import check_new_run, saved_config
from switchx.errors import UserError
from switchx.terminal import remark

CRITERIA = ("load_gate", "load", "gate")  # those of switchx.evaluation.Use.by

EPILOG = """\
Experts are chosen by what the validation split of the run's task uses, or of --task, or --text;
repeated, each counts alike. All of it is read, once more for each loss; --gin.EVAL_STEPS=N reads N
batches. Sizes, task and everything else are those of the run's config.gin, which --gin.NAME=VALUE
changes. docs/pruning.md says more."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `switchx prune`; those all commands share are added by the caller."""
    parser.epilog = EPILOG
    add = parser.add_argument
    add("--from_dir", required=True, metavar="DIR", help="the run directory of a switch model")
    left = parser.add_mutually_exclusive_group(required=True)
    left.add_argument("--experts", type=int, metavar="N", help="keep N experts of each layer")
    left.add_argument(
        "--to_dense", action="store_true", help="keep one of each layer, which makes a plain T5"
    )
    add(
        "--spread",
        action="store_true",
        help="N is the average: some layers keep more, the others become dense",
    )
    add(
        "--fold_gates",
        action="store_true",
        help="gates grow as other experts go: shrink the outputs by as much",
    )
    add(
        "--by",
        choices=CRITERIA,
        default="load_gate",
        help="experts are ranked by their share of the tokens, their mean gate, or the product of "
        "both (%(default)s)",
    )
    add("--task", action="append", default=[], metavar="NAME", help="task that is to be served")
    add("--text", action="append", default=[], metavar="FILE", help="plain text in place of one")
    add("--step", type=int, help="checkpoint to use (default: the newest)")
    add("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> None:
    """Writes the run directory, which must not exist, and prints what was kept and what it cost.

    Raises:
      UserError: the model cannot be pruned so; nothing has been written then.
    """
    if args.spread and (args.experts is None or args.experts < 2):
        raise UserError(
            "--spread needs --experts=N of at least 2, the average: with one expert a layer there "
            "is nothing to spread, and --to_dense keeps that."
        )
    check_new_run(args)
    saved = saved_config(args.from_dir)
    from switchx.api.pruning import Asked, prune
    from switchx.reports import pruning, results

    asked = request(args)
    asked = dataclasses.replace(asked, gin_files=(str(saved), *asked.gin_files))
    wanted = Asked(args.experts, args.spread, args.fold_gates, args.by)
    made = prune(asked, args.from_dir, wanted, args.text, args.task, args.step)
    document = results.plain(made.document)
    made.write(json.dumps(document, indent=1, allow_nan=False) + "\n")
    for line in made.said:
        remark(line)
    if args.json:
        print(json.dumps(document, allow_nan=False))
    else:
        print("\n".join([*pruning.lines(made.document), "", f"in {made.settings.model_dir}"]))
