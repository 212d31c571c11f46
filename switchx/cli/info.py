"""switchx info: parameters, FLOPs and memory of a configuration."""

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING

from switchx.cli.flags import load_either

if TYPE_CHECKING:
    from switchx.settings import Settings


def load_described(args: argparse.Namespace) -> "Settings":
    """The settings, with some of what a run needs and its figures hardly depend on."""
    from switchx.data.tasks.names import NO_TASK

    given = {"MIXTURE_OR_TASK_NAME": NO_TASK, "TRAIN_STEPS": 1, "TFDS_DATA_DIR": None}
    given |= {"C4_JSON_TRAIN": None, "C4_JSON_VALIDATION": None}
    return load_either(args, defaults=given, asked=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `switchx info`; those all commands share are added by the caller."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.epilog = (
        "A model is enough: --gin_file=configs/models/switch_c_2048.gin; --model_dir=RUN describes "
        "a run that was started."
    )


def run(args: argparse.Namespace) -> None:
    """Prints the figures."""
    from switchx.planning import summary_text
    from switchx.planning.summary import Summary, refusal

    settings = load_described(args)
    summary, problem = Summary.of(settings.run), refusal(settings.run)
    if args.json:
        print(json.dumps(dataclasses.asdict(summary) | {"problem": problem}, indent=2))
    else:
        print("\n".join(summary_text.lines(settings.run, summary, problem)))
