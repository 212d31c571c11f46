"""switchx sweep status: what is done, running, failed and left."""

import argparse
import json
import sys
import time

from switchx.cli.flags import request
from switchx.errors import UserError


def run(args: argparse.Namespace) -> None:
    """Prints it; with --watch until there is nothing more to come."""
    from switchx.sweeps.folder import SweepFolder
    from switchx.sweeps.states import States
    from switchx.sweeps.status import Status
    from switchx.sweeps.watching import Watching

    if args.json and args.watch:
        raise UserError("--json and --watch are two ways to show it: leave one out.")
    folder = SweepFolder.open(_directory(args))
    if args.watch:
        watching = Watching(folder, print, sys.stdout)
        while not watching.look():
            time.sleep(0.5)
        return
    status = Status.read(States(folder))
    print(json.dumps(status.form(), indent=1) if args.json else "\n".join(status.lines()))


def _directory(args: argparse.Namespace) -> str:
    """Where the sweep lies, which its gin file says where no flag does."""
    if args.sweep_dir is not None:
        return str(args.sweep_dir)
    from switchx.sweeps import statement

    return str(statement.read(request(args), None).directory)
