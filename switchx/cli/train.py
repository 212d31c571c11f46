"""switchx train: checks what can be checked at once, then trains."""

import argparse
import functools


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Training has no flags of its own: gin says it all."""
    parser.epilog = (
        "Without --gin_file it runs configs/runs/quickstart.gin. A run directory that holds "
        "checkpoints of the same run is continued."
    )


def run(args: argparse.Namespace) -> int:
    """Trains; the cheapest checks come first, and all of them before anything is compiled."""
    from switchx import data, training
    from switchx.cli import gin_config, results
    from switchx.sharding import make_mesh
    from switchx.training import run_directory
    from switchx.training.checks import check_run

    settings = gin_config.load(args)
    check_run(settings.run, make_mesh(settings.run.mesh))
    run_directory.prepare(settings.model_dir)
    data.preflight(settings.data)
    result = training.train(
        settings.run,
        settings.model_dir,
        functools.partial(data.train_stream, settings.data),
        functools.partial(data.eval_batches, settings.data),
        settings.resolved,
        data.vocabulary(settings.data).fingerprint,
    )
    if result.stopped_by is not None:
        return 128 + result.stopped_by
    results.show(settings, result)
    return 0
