"""switchx import: a model that another program trained becomes a run directory."""

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from switchx import storage
from switchx.checks import at_least
from switchx.cli.flags import load
from switchx.cli.new_run import check_new_run
from switchx.errors import UserError
from switchx.terminal import remark

if TYPE_CHECKING:
    from switchx.data.tasks.ids import Ids
    from switchx.interop.source import Source, SpecialIds
    from switchx.settings import Settings

VOCABULARY = "vocabulary.model"  # in the run's directory, where one came with the model

EPILOG = """\
The model's sizes come from --input; the task, its vocabulary and everything else from gin, as for
`switchx train`, which goes on from the checkpoint written here, as eval and infer use it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `switchx import`; those all commands share are added by the caller."""
    from switchx.interop import SOURCES

    parser.epilog = EPILOG
    add = parser.add_argument
    add("--from", dest="kind", required=True, choices=SOURCES, help="the program that wrote it")
    add("--input", required=True, metavar="DIR", help="where it lies")
    add(
        "--step", type=int, help="steps it is taken to be trained for (default: what it says, or 0)"
    )


def run(args: argparse.Namespace) -> None:
    """Writes the run directory, which must not exist.

    Raises:
      UserError: the source or the configuration is not usable; nothing has been written then.
    """
    check_new_run(args)
    if args.step is not None:
        at_least("--step", args.step, 0)
    from switchx.interop import open_source

    source = open_source(args.kind, args.input)
    from switchx.interop.new_run import write_run
    from switchx.sharding import make_mesh
    from switchx.training.checks import check_run
    from switchx.training.config import MOST_STEPS

    if (args.step or 0) > MOST_STEPS:
        raise UserError(f"--step={args.step} must be at most {MOST_STEPS}.")
    step = (source.step or 0) if args.step is None else args.step
    with tempfile.TemporaryDirectory() as here:
        vocabulary = Path(here) / VOCABULARY  # until there is a run's directory
        if source.vocabulary is not None:
            storage.write_whole(vocabulary, source.vocabulary)
            source.model_fields["DataConfig.vocabulary"] = str(vocabulary)
        settings = _settings(args, source)
        check_run(settings.run, make_mesh(settings.run.mesh))
        _check_vocabulary(settings, source)
        for note in source.notes:
            print(note)
        came_along = settings.data.vocabulary == str(vocabulary)
        resolved = settings.resolved
        if came_along:
            theirs = storage.as_path(settings.model_dir, "--model_dir") / VOCABULARY
            resolved = resolved.replace(repr(str(vocabulary)), repr(str(theirs)))
            print(f"the vocabulary comes along: VOCABULARY='{theirs}'")
        with storage.new_place(settings.model_dir, "--model_dir") as directory:
            origin = {"from": args.kind, "path": args.input}
            if came_along and source.vocabulary is not None:
                storage.write_whole(directory / VOCABULARY, source.vocabulary)
            count, kept = write_run(settings.run, source, directory, resolved, step, origin)
    optimizer = "goes on from its state" if kept else "starts afresh"
    print(
        f"{count:,} parameters, step {step:,}, in {settings.model_dir}; the optimizer {optimizer}"
    )


def _settings(args: argparse.Namespace, source: "Source") -> "Settings":
    """What gin says of the model in the source; what of it follows from T5X's groups is said."""
    settings = load(args, model=source.model_fields)
    if args.kind == "t5x":
        from switchx.interop.t5x import group_fields

        fields = group_fields(settings.run)
        for name, value in fields.items():
            print(
                f"{name}={value!r}: T5X fills batches of this size up to a multiple of the "
                "experts, so this run does it too."
            )
        if fields:
            return load(args, model={**source.model_fields, **fields})
    return settings


def _check_vocabulary(settings: "Settings", source: "Source") -> None:
    """Refuses a vocabulary that is too large, or whose padding or end are not the model's.

    One that is not here is left to the first start.
    """
    from switchx import data
    from switchx.training.checks import check_vocabulary

    ids = data.known_ids(settings.data)
    if ids is not None:  # its size was compared when the settings were read
        if source.special is not None:
            _check_ids(settings.data.vocabulary, ids, source.special)
        return
    try:
        size = data.vocabulary_size(settings.data)
    except UserError as error:
        remark(f"the vocabulary is not checked yet: {error}")
        return
    check_vocabulary(settings.run.model.vocab_size, size)


def _check_ids(vocabulary: str, ids: "Ids", model: "SpecialIds") -> None:
    found = ids.file_pad, ids.exchanged(ids.eos)
    if found[0] != model.pad or model.eos not in (found[1], None):
        raise UserError(
            f"VOCABULARY={vocabulary!r} has padding {found[0]} and end of sequence {found[1]}, but "
            f"the model in --input pad_token_id={model.pad} and eos_token_id={model.eos}: name the "
            "vocabulary that it was trained with."
        )
