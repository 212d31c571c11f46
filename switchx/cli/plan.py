"""switchx plan: what a run needs on chips that are not here, before they are paid for."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from switchx.cli.info import load_described
from switchx.errors import UserError

if TYPE_CHECKING:
    from switchx.planning.plan import Plan
    from switchx.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `switchx plan`; those all commands share are added by the caller."""
    parser.add_argument(
        "--topology",
        required=True,
        metavar="NAME",
        help="v5p-1024, v5p:8x8x8, v5e-256, 2xv5e-256 (two slices), h100x8 (a node), 8xh100x8, "
        "cpu:8; with --fit a family alone: v4, v5e, v5p, v6e, h100, ...",
    )
    parser.add_argument(
        "--fit",
        action="store_true",
        help="find the family's smallest slice, and the mesh and remat policy, that fit the run",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="where plan.txt, plan.json and plan.png go (default: one under plans/)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.epilog = (
        "Compiles the step that training runs. Ends with 0 if it fits, with 2 if not. A model is "
        "enough: --gin_file=configs/models/switch_c_2048.gin"
    )


def run(args: argparse.Namespace) -> int:
    """Prints and saves the plan."""
    if args.cpu_devices is not None:
        raise UserError(f"--cpu_devices={args.cpu_devices} is not for plans: use --topology=cpu:N.")
    from switchx.planning import environment

    environment.prepare()
    from switchx.api.teaching import taught
    from switchx.settings import check_idle_of_teacher

    settings = load_described(args)
    check_idle_of_teacher(settings)
    settings = dataclasses.replace(settings, run=taught(settings, planned=True))
    return (_fit if args.fit else _plan)(args, settings)


def _plan(args: argparse.Namespace, settings: "Settings") -> int:
    from switchx.cli.environment import prepare_devices
    from switchx.planning import plan, report, saved, topology

    chosen = topology.parse(args.topology)
    if chosen.chip is None:
        prepare_devices(chosen.num_chips)
    name = f"{_model(settings)}-{chosen.name.replace(':', '-')}"
    identity = f"{plan.fingerprint(settings.run)} {chosen.name}"
    directory = saved.choose_directory(args.output, name, identity)
    made = plan.make_plan(settings.run, chosen, say=_say)
    text, values = report.text(made), report.to_json(made)
    _show(args, directory, identity, text, values, made)
    if made.fits is False:
        raise UserError(report.refusal(made))
    return 0


def _fit(args: argparse.Namespace, settings: "Settings") -> int:
    from switchx.planning import fit, plan, report, saved, topology

    slices = topology.family(args.topology)
    fit.require_compiler(slices[0])
    name = f"{_model(settings)}-fit-{slices[0].name.split(':')[0].split('x')[0]}"
    identity = f"{plan.fingerprint(settings.run)} --fit {args.topology}"
    directory = saved.choose_directory(args.output, name, identity)
    found = fit.find(settings.run, slices, fit.in_subprocess, _say)
    text, values = report.fit_text(found), report.fit_to_json(found)
    _show(args, directory, identity, text, values, found.best)
    if found.best is None:
        raise UserError(
            f"No slice of {args.topology} fits this run: lower BATCH_SIZE, or raise MICROBATCHES."
        )
    return 0


def _show(
    args: argparse.Namespace,
    directory: Path,
    identity: str,
    text: str,
    values: dict[str, Any],
    made: "Plan | None",
) -> None:
    from switchx.planning import saved

    print(json.dumps(values, indent=2) if args.json else text, flush=True)
    _say(f"wrote {', '.join(map(str, saved.save(directory, identity, text, values, made)))}")


def _model(settings: "Settings") -> str:
    return Path(settings.model_dir).name.removesuffix("-any")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
