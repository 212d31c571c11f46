"""switchx infer: texts with blanks in, JSON lines with the blanks filled out."""

import argparse
import sys

from switchx.cli.flags import load_run
from switchx.terminal import counted, tracked

DESCRIPTION = """\
Reads lines of text, or JSON lines, a JSON array or Parquet with a "text" in each record, plain or
compressed. Blanks are <extra_id_0>, <extra_id_1>, ... or __. Writes each as a JSON line with what
the model makes of it: "output", as it came; "blanks", what it put into each; "filled", the text
without blanks."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `switchx infer`; those all commands share are added by the caller."""
    parser.description = DESCRIPTION
    add = parser.add_argument
    add("--step", type=int, help="checkpoint to use (default: the newest)")
    add("--input", default="-", metavar="FILE", help="texts (default: -, standard input)")
    add("--output", default="-", metavar="FILE", help="new file (default: -, standard output)")
    add("--method", default="greedy", choices=("greedy", "sample", "beam"), help="(%(default)s)")
    add("--temperature", type=float, help="sample: divides the logits (1.0)")
    add("--top_k", type=int, help="sample: from so many most probable tokens (0: all)")
    add("--top_p", type=float, help="sample: from the fewest tokens of this mass (1.0: all)")
    add("--seed", type=int, help="sample: of the random choices (0)")
    add("--num_beams", type=int, help="beam: hypotheses kept (4)")
    add(
        "--length_penalty",
        type=float,
        help="beam: alpha of logp / ((5 + length) / 6)^alpha (0.6)",
    )
    add("--max_length", type=int, help="most tokens of an answer (the length of 'targets')")
    add("--batch_size", type=int, help="lines at a time (8, or what the mesh needs)")


def run(args: argparse.Namespace) -> None:
    """Answers every line of the input.

    Raises:
      UserError: a flag, the input or the model is not usable; nothing has been written then.
    """
    from switchx.inference import lines
    from switchx.inference.config import ONLY, check_used

    names = {"max_length": "length", "method": "method", "batch_size": "batch_size"}
    names |= {flag: flag for flag in ONLY}
    given = {names[flag]: value for flag, value in vars(args).items() if flag in names}
    given = {name: value for name, value in given.items() if value is not None}
    check_used(args.method, given)
    lines.check_output(args.output)
    rows = lines.read_rows(args.input)

    from switchx.api import Run

    run = Run.of(load_run(args, reads_data=False), args.step)
    decoding = run.decoding(**given)
    run.check_model()  # what is wrong with its vocabulary is of no line
    tokens = lines.encode_rows(rows, run.encode)
    with lines.writing(args.output) as output:
        print(
            f"{counted(len(rows), 'line')}, checkpoint of step {run.step}, {decoding.method}, "
            f"{decoding.batch_size} at a time",
            file=sys.stderr,
        )
        answers = run.answers([row["text"] for _, row in rows], decoding, tokens)
        bar = tracked(answers, len(rows), "lines")
        for (_, row), answer in zip(rows, bar, strict=True):
            lines.write_row(row, answer, output)
