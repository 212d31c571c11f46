"""switchx sweep: plans, runs, watches and reports a grid of runs."""

import argparse
import importlib
from typing import Any

from switchx.cli.flags import (
    add_action_flags,
    add_host_arguments,
    check_action_flags,
    check_one_host,
)
from switchx.errors import UserError

# Each is a module switchx.cli.sweep_<name> with run(args) -> int | None.
ACTIONS = {
    "plan": "every point with its size, steps, memory and time; refuses what cannot run",
    "run": "work through the points, beside any number of other workers",
    "status": "what is done, running, failed and left",
    "report": "curves, laws and tables of what is done, as a page, pictures and numbers",
}
# Which actions take a flag, and how argparse reads it.
FLAGS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "--topology": (
        ("plan",),
        {
            "metavar": "NAME",
            "help": "compile each point for these chips, as v5e-256: `switchx plan`",
        },
    ),
    "--analytic": (
        ("plan",),
        {"action": "store_true", "help": "with --topology: compile nothing, by formulas alone"},
    ),
    "--commands": (
        ("plan",),
        {"action": "store_true", "help": "print each point's command, not the table"},
    ),
    "--output": (
        ("report",),
        {"metavar": "DIR", "help": "where it is written (default: report/ in the sweep's folder)"},
    ),
    "--slots": (
        ("run",),
        {
            "type": int,
            "default": 1,
            "metavar": "N",
            "help": "so many workers at once, each a process of this machine with its own log",
        },
    ),
    "--retry_failed": (
        ("run",),
        {"action": "store_true", "help": "try the points that failed for good again"},
    ),
    "--watch": (
        ("status",),
        {"action": "store_true", "help": "go on showing it until nothing more will come"},
    ),
    "--json": (("plan", "status"), {"action": "store_true", "help": "print one JSON object"}),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `switchx sweep`; those all commands share are added by the caller."""
    parser.add_argument("action", choices=ACTIONS, metavar="ACTION", help=_actions())
    parser.add_argument(
        "--sweep_dir", metavar="DIR", help="the sweep's folder (default: SWEEP_DIR of its gin file)"
    )
    add_action_flags(parser, FLAGS)
    add_host_arguments(parser)
    parser.epilog = "A sweep is one gin file, as configs/sweeps/ has them: docs/sweeps.md."


def run(args: argparse.Namespace) -> int | None:
    """Does one action."""
    check_action_flags(args, "sweep", FLAGS)
    if args.action != "run":
        check_one_host(args, f"switchx sweep {args.action}")
    if args.model_dir is not None:
        raise UserError(
            f"--model_dir={args.model_dir} is not for sweeps, whose points have each their own: "
            "use --sweep_dir."
        )
    if args.gin_bindings and args.sweep_dir is not None and args.action in ("status", "report"):
        raise UserError(
            f"--gin.{args.gin_bindings[0]} does nothing in `switchx sweep {args.action}`, which "
            "reads the folder of --sweep_dir: leave it out."
        )
    action = importlib.import_module(f"switchx.cli.sweep_{args.action}")
    status: int | None = action.run(args)
    return status


def _actions() -> str:
    return "; ".join(f"{name}: {purpose}" for name, purpose in ACTIONS.items())
