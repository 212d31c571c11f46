"""switchx convert-gin: T5X's gin files become one of switchx."""

import argparse
import shlex

from switchx import storage
from switchx.cli.flags import request
from switchx.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `switchx convert-gin`; those all commands share are added by the caller."""
    add = parser.add_argument
    add("files", nargs="*", metavar="FILE", help="T5X's, in the order of --gin_file; or so named")
    add("--output", required=True, metavar="FILE", help="to write, which must not exist")
    parser.epilog = (
        "The file that is written needs no other: `switchx train --gin_file=FILE` with it is the "
        "run that the files of T5X ask for. What has no equal is said, or refused where it would "
        "change what is trained; --gin.NAME=VALUE sets something in its place."
    )


def run(args: argparse.Namespace) -> None:
    """Writes the file, or nothing.

    Raises:
      UserError: there is a file, or T5X's files ask for something that switchx does not have.
    """
    from switchx.settings import converted

    args.gin_file = [*args.files, *args.gin_file]
    if not args.gin_file:
        raise UserError("`switchx convert-gin` needs a file of T5X: name one, as in their.gin.")
    output = storage.check_new(args.output, "--output")
    text, notes, missing = converted(request(args))
    if not storage.create_once(output, text, "--output"):
        raise UserError(f"--output={args.output} exists: name another file.")
    for note in notes:
        print(note)
    command = " ".join(
        [
            f"switchx train --gin_file={shlex.quote(args.output)}",
            *(f"--gin.{name}=VALUE" for name in missing),
        ]
    )
    print(f"{args.output} is written: `{command}` runs it.")
