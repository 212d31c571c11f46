"""switchx sweep plan: every point before a device is taken, and the sweep's folder."""

import argparse
import json
import shlex
import sys
from typing import TYPE_CHECKING

from switchx.cli.flags import request
from switchx.errors import UserError

if TYPE_CHECKING:
    from switchx.planning.topology import Topology
    from switchx.sweeps.folder import SweepFolder


def run(args: argparse.Namespace) -> None:
    """Prints the plan and writes the folder, unless a point could not run."""
    from switchx.planning import environment
    from switchx.sweeps import figures, making, plan_table

    environment.prepare()
    topology = _topology(args)
    made = making.make(request(args), args.sweep_dir)
    found = figures.of_sweep(made, topology, not args.analytic, _say)
    if not args.commands:
        planned = plan_table.Planned.of(made, found, topology)
        print(json.dumps(planned.form(), indent=1) if args.json else planned.text(), flush=True)
    refused = [each.problem for each in found if each.problem is not None]
    if refused:
        raise UserError(
            f"{len(refused)} of {len(found)} points cannot run, and nothing was written: "
            f"{refused[0]}"
        )
    made.write()
    for command in _commands(made.folder) if args.commands else ():
        print(command)
    for line in made.changes():
        _say(line)
    where = shlex.quote(str(made.folder.path))
    _say(f"wrote {made.folder.path}: run it with `switchx sweep run --sweep_dir={where}`")


def _commands(folder: "SweepFolder") -> list[str]:
    """What trains each point alone, in the order of the sweep."""
    files = (shlex.quote(str(folder.config_file(point))) for point in folder.in_order())
    return [f"switchx train --gin_file={file}" for file in files]


def _topology(args: argparse.Namespace) -> "Topology | None":
    from switchx.cli.environment import prepare_devices
    from switchx.planning import topology

    if args.cpu_devices is not None:
        raise UserError(f"--cpu_devices={args.cpu_devices} is not for plans: use --topology=cpu:N.")
    if args.topology is None:
        if args.analytic:
            raise UserError("--analytic is for a topology's chips: name one with --topology.")
        return None
    chosen = topology.parse(args.topology)
    if chosen.chip is None:
        prepare_devices(chosen.num_chips)
    return chosen


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
