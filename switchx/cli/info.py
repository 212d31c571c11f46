"""switchx info: parameters, FLOPs and memory of a configuration."""

import argparse
import dataclasses
import json

from switchx.cli.flags import load_either
from switchx.data.tasks.names import NO_TASK

# What a run needs and its figures do not depend on, or hardly.
NOT_NEEDED = {"MIXTURE_OR_TASK_NAME": NO_TASK, "TRAIN_STEPS": 1, "TFDS_DATA_DIR": None}
NOT_NEEDED |= {"C4_JSON_TRAIN": None, "C4_JSON_VALIDATION": None}


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

    settings = load_either(args, defaults=NOT_NEEDED, asked=True)
    summary, problem = Summary.of(settings.run), refusal(settings.run)
    if args.json:
        print(json.dumps(dataclasses.asdict(summary) | {"problem": problem}, indent=2))
    else:
        print("\n".join(summary_text.lines(settings.run, summary, problem)))
