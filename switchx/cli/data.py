"""switchx data: prepares, shows, checks and times what a model is fed, and trains vocabularies."""

import argparse
import importlib

from switchx.cli import data_teach, data_vocabulary
from switchx.cli.flags import add_host_arguments, load_either
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
# What these need of a run is its data.
_NOT_NEEDED = {"TRAIN_STEPS": 1, "NUM_EXPERTS": 1, "MIXTURE_OR_TASK_NAME": ""}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `switchx data`; those all commands share are added by the caller."""
    parser.add_argument("action", choices=ACTIONS, metavar="ACTION", help=_actions())
    parser.add_argument(
        "--shards", type=int, metavar="N", help="prepare: files of each split (default: its files)"
    )
    parser.add_argument("--splits", default="train,validation", help="prepare: which (%(default)s)")
    parser.add_argument(
        "--count", type=int, default=3, metavar="N", help="show: how many examples (%(default)s)"
    )
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="bench: how long each (%(default)s)"
    )
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
    if args.action == "vocabulary":
        data_vocabulary.run(args)
        return None
    for flag in data_vocabulary.FLAGS:
        if getattr(args, flag) is not None:
            raise UserError(f"--{flag} is for `switchx data vocabulary` alone.")
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
