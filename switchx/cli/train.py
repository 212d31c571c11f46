"""switchx train: trains, and shows what became of it."""

import argparse
from typing import TYPE_CHECKING

from switchx.cli.flags import add_host_arguments, load
from switchx.terminal import remark

if TYPE_CHECKING:
    from switchx.training import TrainResult


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is trained, and how, gin says."""
    add_host_arguments(parser)
    parser.add_argument(
        "--profile_steps",
        metavar="FIRST:LAST",
        help="write a profile of these steps, as in 10:15, into profile/ of the run's directory",
    )
    parser.epilog = (
        "Without --gin_file it runs configs/runs/quickstart.gin. A run directory that holds "
        "checkpoints of the same run is continued: --gin_file=RUN/config.gin."
    )


def _stopped(result: "TrainResult", model_dir: str) -> str:
    done = result.step > result.first_step
    what = f"step {result.step:,} is saved in {model_dir}" if done else "before a step was done"
    return f"stopped: {what}; the same command goes on from there"


def run(args: argparse.Namespace) -> int:
    """Trains; the cheapest checks come first, and all of them before anything is compiled."""
    import jax

    from switchx import hosts
    from switchx.api import Run, metric_writers, train_run
    from switchx.cli.hosts import joined

    settings = load(args)

    def begun(changes: list[str]) -> None:
        if args.log:
            args.log.move_to(settings.model_dir, jax.process_index())
        for line in changes if hosts.is_first() else ():
            remark(line)

    with metric_writers(settings) as writers:
        with joined(args, settings, preemption=True) as token:
            result, drawn = train_run(settings, token, begun, args.profile_steps, writers)
        if result.stopped_by is not None:
            if hosts.is_first():
                remark(_stopped(result, settings.model_dir))
            return 128 + result.stopped_by
        if hosts.is_first():
            from switchx.reports import results

            samples = results.show(Run.of(settings), result, drawn)
            if samples:
                writers.text(result.step, "samples", samples)
    return 0
