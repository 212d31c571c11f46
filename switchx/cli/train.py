"""switchx train: checks what can be checked at once, then trains."""

import argparse
import functools
import sys
from typing import TYPE_CHECKING

from switchx.cli.flags import add_host_arguments

if TYPE_CHECKING:
    from switchx.settings.loading import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Training has no flags of its own but those of hosts: gin says it all."""
    add_host_arguments(parser)
    parser.epilog = (
        "Without --gin_file it runs configs/runs/quickstart.gin. A run directory that holds "
        "checkpoints of the same run is continued."
    )


def run(args: argparse.Namespace) -> int:
    """Trains; the cheapest checks come first, and all of them before anything is compiled."""
    from switchx.cli import hosts
    from switchx.settings import loading as gin_config

    settings = gin_config.load(args)
    with hosts.joined(args, settings, preemption=True) as token:
        return _train(settings, token)


def _train(settings: "Settings", token: str) -> int:
    from switchx import data, hosts, training
    from switchx.evaluation import Evaluator
    from switchx.reports import pictures, results
    from switchx.settings.changes import changed_settings
    from switchx.sharding import make_mesh
    from switchx.training import run_directory
    from switchx.training.checks import check_run
    from switchx.training.metrics import layer_names

    check_run(settings.run, make_mesh(settings.run.mesh))
    directory = run_directory.prepare(settings.model_dir, token)
    with run_directory.locked(directory):
        for line in changed_settings(settings) if hosts.is_first() else ():
            print(f"switchx: {line}", file=sys.stderr)
        data.preflight(settings.data)
        evaluator = functools.partial(
            Evaluator,
            make_batches=functools.partial(data.eval_batches, settings.data),
            make_task_batches=data.task_eval_batches(settings.data),
        )
        result = training.train(
            settings.run,
            settings.model_dir,
            functools.partial(data.train_stream, settings.data),
            evaluator,
            settings.resolved,
            data.vocabulary_fingerprint(settings.data),
            token,
        )
    drawn = pictures.draw(directory, layer_names(settings.run.model)) if hosts.is_first() else []
    if result.stopped_by is not None:
        return 128 + result.stopped_by
    if hosts.is_first():
        results.show(settings, result, drawn)
    return 0
