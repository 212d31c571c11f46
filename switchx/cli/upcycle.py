"""switchx upcycle: a dense model's run becomes the start of a switch model's."""

import argparse
import dataclasses

from switchx import storage
from switchx.cli.flags import request
from switchx.cli.new_run import check_new_run, saved_config
from switchx.errors import UserError

EPILOG = """\
Sizes, task and everything else are those of the dense run's config.gin, which --gin_file and
--gin.NAME=VALUE then change: --gin.NUM_EXPERTS=8 is enough. Training goes on at the dense model's
step, so TRAIN_STEPS counts from there, and reads its data from the start again: another SEED
orders it anew."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `switchx upcycle`; those all commands share are added by the caller."""
    parser.epilog = EPILOG
    parser.add_argument(
        "--from_dir", required=True, metavar="DIR", help="the run directory of a dense model"
    )


def run(args: argparse.Namespace) -> None:
    """Writes the run directory, which must not exist.

    Raises:
      UserError: the two models do not fit; nothing has been written then.
    """
    check_new_run(args)
    saved = saved_config(args.from_dir)
    from switchx.interop.new_run import bring_vocabulary, write_run
    from switchx.interop.upcycling import Upcycled, check_sizes
    from switchx.model import Model
    from switchx.settings import check_fits, load, read_flag
    from switchx.sharding import make_mesh
    from switchx.training.checkpoints import restore_params
    from switchx.training.checks import check_run

    asked = request(args)
    dense = load(dataclasses.replace(asked, gin_files=(str(saved),), bindings=())).run.model
    settings = load(
        dataclasses.replace(
            asked,
            gin_files=(str(saved), *asked.gin_files),
            bindings=(read_flag("ModelConfig.switch=@SwitchConfig()"), *asked.bindings),
        )
    )
    check_fits(settings, asked=True)
    check_sizes(dense, settings.run.model, args.from_dir)
    mesh = make_mesh(settings.run.mesh)
    check_run(settings.run, mesh)
    params, step = restore_params(Model.of(dense), saved.parent, mesh)
    if step >= settings.run.trainer.train_steps:
        raise UserError(
            f"TRAIN_STEPS={settings.run.trainer.train_steps} leaves nothing to train: the dense "
            f"model in --from_dir={args.from_dir} is at step {step}, where training goes on."
        )
    source = Upcycled(settings.run, mesh, params, step)
    to = storage.as_path(settings.model_dir, "--model_dir")
    with storage.new_place(to, "--model_dir") as directory:
        named, there = settings.data.vocabulary, str(saved.parent)
        resolved = bring_vocabulary(settings.resolved, named, there, directory, to)
        origin = {"from": "upcycled", "path": args.from_dir}
        count, _ = write_run(settings.run, source, directory, resolved, step, origin)
    print(f"{count:,} parameters, step {step:,}, in {settings.model_dir}")
