"""switchx plan: what a run needs on chips that are not here, before they are paid for."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from switchx.errors import UserError

if TYPE_CHECKING:
    from switchx.planning.plan import Plan

# What a run needs and its plan does not depend on.
_NOT_NEEDED = {"MIXTURE_OR_TASK_NAME": "any", "TRAIN_STEPS": 1, "TFDS_DATA_DIR": None}
_NOT_NEEDED |= {"C4_JSON_TRAIN": None, "C4_JSON_VALIDATION": None}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `switchx plan`; those all commands share are added by the caller."""
    parser.add_argument(
        "--topology",
        required=True,
        metavar="NAME",
        help="v5p-1024, v5p:8x8x8, v5e-256, 2xv5e-256 (two slices), h100x8 (a node), 8xh100x8, "
        "cpu:8; with --fit a family alone: v4, v5e, v5p, v6e, h100, ...",
    )
    parser.add_argument("--output", metavar="DIR", help="default: plans/<model>-<topology>")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.epilog = (
        "Compiles the step that training runs and writes plan.txt, plan.json and plan.png. Ends "
        "with 0 if it fits, with 2 if not. A model is enough: "
        "--gin_file=configs/models/switch_c_2048.gin"
    )


def run(args: argparse.Namespace) -> int:
    """Prints and saves the plan."""
    if args.cpu_devices is not None:
        raise UserError(f"--cpu_devices={args.cpu_devices} is not for plans: use --topology=cpu:N.")
    # Before JAX is imported: it must look for no accelerator, and libtpu for no metadata server.
    os.environ["JAX_PLATFORMS"] = "cpu"
    from switchx.cli import gin_config
    from switchx.cli.flags import prepare_devices
    from switchx.planning import devices, plan, report, topology

    devices.set_environment()
    chosen = topology.parse(args.topology)
    if chosen.chip is None:
        prepare_devices(chosen.num_chips)
    settings = gin_config.load(args, defaults=_NOT_NEEDED)
    made = plan.make_plan(settings.run, chosen, say=_say)
    print(json.dumps(report.to_json(made), indent=2) if args.json else report.text(made))
    _save(made, args.output or _default_output(settings.model_dir, made.topology))
    if made.fits is False:
        raise UserError(report.refusal(made))
    return 0


def _save(made: "Plan", output: str) -> None:
    from switchx.planning import picture, report

    directory = Path(output).expanduser()
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "plan.txt").write_text(report.text(made) + "\n")
    (directory / "plan.json").write_text(json.dumps(report.to_json(made), indent=2) + "\n")
    picture.draw(made, directory / "plan.png")
    _say(f"wrote {directory}/plan.txt, plan.json and plan.png")


def _default_output(model_dir: str, name: str) -> str:
    return f"plans/{Path(model_dir).name.removesuffix('-any')}-{name.replace(':', '-')}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
