"""switchx data: prepares, shows, checks and times what a model is fed, and trains vocabularies."""

import argparse
import importlib
import math
from typing import Any

from switchx.cli import data_teach, data_vocabulary
from switchx.cli.flags import (
    add_action_flags,
    add_host_arguments,
    check_action_flags,
    check_no_settings,
    check_one_host,
    load_either,
)
from switchx.errors import UserError

# Each is a module switchx.cli.data_<name> with run(args, settings); `teach` reads settings of its
# own, and a vocabulary needs none.
ACTIONS = {
    "prepare": "tokenize and cut a task or mixture once, into PREPARED_DIR",
    "teach": "write a teacher's logits beside a prepared set, for students to read",
    "show": "print a few examples, corrupted and whole",
    "check": "read every record of a prepared set and say what is wrong",
    "bench": "examples per second, prepared and streamed",
    "vocabulary": "train a SentencePiece vocabulary on files of text",
}
# Which actions take a flag, and how argparse reads it.
FLAGS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "--shards": (
        ("prepare",),
        {"type": int, "metavar": "N", "help": "files of each split (default: its files)"},
    ),
    "--splits": (("prepare",), {"default": "train,validation", "help": "which (%(default)s)"}),
    "--count": (
        ("show",),
        {"type": int, "default": 3, "metavar": "N", "help": "how many examples (%(default)s)"},
    ),
    "--seconds": (
        ("bench",),
        {"type": float, "default": 10.0, "help": "how long each (%(default)s)"},
    ),
}
_OF_VOCABULARY = {flag: (("vocabulary",), how) for flag, how in data_vocabulary.FLAGS.items()}
# What these need of a run is its data.
_NOT_NEEDED = {"TRAIN_STEPS": 1, "NUM_EXPERTS": 1, "MIXTURE_OR_TASK_NAME": ""}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `switchx data`; those all commands share are added by the caller."""
    parser.add_argument("action", choices=ACTIONS, metavar="ACTION", help=_actions())
    add_action_flags(parser, FLAGS)
    data_vocabulary.add_arguments(parser)
    add_host_arguments(parser)
    parser.epilog = (
        "Needs the data settings of a run alone (--model_dir=RUN: of that run); a model is not "
        "looked at, but by `teach`, which needs all of a student's. Several hosts are for it "
        "alone. What follows -- are "
        "Apache Beam's own flags for `prepare`, as in -- --runner=DataflowRunner --project=.. "
        "(default: this machine)."
    )


def run(args: argparse.Namespace) -> int | None:
    """Does one action."""
    if args.beyond and args.action != "prepare":
        raise UserError(f"{args.beyond[0]!r} is for `switchx data prepare` alone.")
    check_action_flags(args, "data", FLAGS | _OF_VOCABULARY)
    if args.action != "teach":
        check_one_host(args, f"switchx data {args.action}")
    if args.action == "vocabulary":
        check_no_settings(args, "data vocabulary", "the files of --input")
        data_vocabulary.run(args)
        return None
    if args.count < 1:
        raise UserError(f"--count={args.count} is no count: give a whole number of at least 1.")
    if not 0 < args.seconds < math.inf:
        raise UserError(f"--seconds={args.seconds:g} is no time: give a number above 0.")
    if args.action == "teach":
        data_teach.run(args)
        return None
    prepared = args.action != "prepare"
    settings = load_either(args, defaults=_NOT_NEEDED, model=False, prepared=prepared, asked=True)
    action = importlib.import_module(f"switchx.cli.data_{args.action}")
    status: int | None = action.run(args, settings)
    return status


def _actions() -> str:
    return "; ".join(f"{name}: {purpose}" for name, purpose in ACTIONS.items())
