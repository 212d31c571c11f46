"""switchx sweep report: curves, speed-ups and laws of a sweep's finished points."""

import argparse
import sys

from switchx.cli.flags import request


def run(args: argparse.Namespace) -> None:
    """Writes the report and prints its tables; trains nothing."""
    from switchx.planning import environment

    environment.prepare()
    from switchx import storage
    from switchx.reports import document, output, runs, terminal
    from switchx.sweeps import statement
    from switchx.sweeps.folder import SweepFolder

    where = statement.read(request(args)).directory if args.sweep_dir is None else args.sweep_dir
    sweep = SweepFolder.open(where)
    own = str(storage.as_path(sweep.path) / "report")
    target = own if args.output is None else args.output
    output.check_output(target)
    found, left_out = runs.read_runs(
        {point.name: sweep.run_directory(point) for point in sweep.points}
    )
    if not found:
        raise terminal.nothing_to_report(str(sweep.path), left_out)
    varied = {point.name: point.varied for point in sweep.points}
    made = document.of_sweep(sweep.name, found, left_out, varied)
    page = output.write(made, target)
    print("\n".join(terminal.lines(made)))
    print(f"wrote {page}", file=sys.stderr)
