"""switchx inspect: what each expert of a trained model does, as a page and as numbers."""

import argparse
import json
import sys

from switchx.cli.flags import load_run
from switchx.errors import UserError

DEFAULT_OUTPUT = "inspection.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `switchx inspect`; those all commands share are added by the caller."""
    add = parser.add_argument
    add("--step", type=int, help="checkpoint to use (default: the newest)")
    add("--earlier", type=int, metavar="STEP", help="checkpoint to compare with (default: all)")
    add("--text", action="append", default=[], metavar="FILE", help="plain text to look at")
    add("--task", action="append", default=[], metavar="NAME", help="task to look at")
    add("--output", default=DEFAULT_OUTPUT, metavar="FILE", help="new page (%(default)s)")
    add("--json", metavar="FILE", help="new file of the same as numbers")
    parser.epilog = (
        "Repeat --text and --task to compare sources; without either the run's own validation "
        "split is read. docs/inspect.md describes the numbers."
    )


def run(args: argparse.Namespace) -> None:
    """Writes the page, and the numbers where asked; prints what they say in a few lines.

    Raises:
      UserError: a flag, a text or the model is not usable; nothing has been written then.
    """
    from switchx import storage

    places = {"--output": args.output} | ({"--json": args.json} if args.json else {})
    paths = {flag: storage.check_new_file(path, flag) for flag, path in places.items()}
    if len({*map(str, paths.values())}) < len(paths):
        raise UserError(f"--json={args.json} is the --output too: name another file for one.")

    from switchx.api import Run
    from switchx.reports import inspection, inspection_page

    reads_data = not args.text or bool(args.task)
    opened = Run.of(load_run(args, reads_data=reads_data), args.step)
    made = inspection.document(opened.inspect(args.text, args.task, args.earlier))
    texts = {"--output": inspection_page.page(made)}
    texts["--json"] = json.dumps(made, indent=1, allow_nan=False) + "\n"
    print("\n".join(made["answer"]))
    for flag, path in paths.items():
        storage.write_whole(path, texts[flag])
        print(f"wrote {path}", file=sys.stderr)
