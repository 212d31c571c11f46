"""switchx compare: what sets runs apart, in their settings and in their curves."""

import argparse
import sys

from switchx.cli.flags import check_no_settings

DEFAULT_OUTPUT = "comparison"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `switchx compare`; those all commands share are added by the caller."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="directories of runs, two or more")
    parser.add_argument(
        "--output",
        default=DEFAULT_OUTPUT,
        metavar="DIR",
        help="where page, pictures and numbers are written (%(default)s)",
    )
    parser.epilog = "The first run is the one that the others are compared with: docs/sweeps.md."


def run(args: argparse.Namespace) -> None:
    """Writes the comparison and prints its tables; trains nothing."""
    check_no_settings(args, "compare", "the runs' own")
    from switchx.planning import environment

    environment.prepare()
    from switchx.reports import document, names, output, runs, terminal

    places = names.of_directories(args.runs)
    output.check_output(args.output)
    found = {place: runs.read_run(name, place) for name, place in places.items()}
    runs.check_measured(found)
    made = document.of_comparison(list(found.values()))
    page = output.write(made, args.output)
    print("\n".join(terminal.lines(made)))
    print(f"wrote {page}", file=sys.stderr)
