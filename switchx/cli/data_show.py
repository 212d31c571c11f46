"""switchx data show: examples as the model gets them, and the text they were made of."""

import argparse
import dataclasses
import itertools
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from switchx.settings import Settings


def run(args: argparse.Namespace, settings: "Settings") -> None:
    """Prints what the first training examples of a run are read from, and these."""
    from switchx import data
    from switchx.data.examples import taught_examples_of
    from switchx.reports.examples import example_lines

    data.preflight(settings.data, ["train"])
    vocabulary = data.vocabulary(settings.data)
    logits = settings.objective.logits
    stream = data.train_stream(dataclasses.replace(settings.data, logits=logits))
    examples = itertools.chain.from_iterable(map(taught_examples_of, stream))
    width, coloured = shutil.get_terminal_size((96, 24)).columns, sys.stdout.isatty()
    width = min(max(width, 20), 96)
    for line in data.described_sources(settings.data):
        print("\n".join(textwrap.wrap(line, width, subsequent_indent="    ")))
    for number, example in enumerate(itertools.islice(examples, args.count), start=1):
        print("\n".join(example_lines(number, *example, vocabulary, width, coloured)))
    stream.close()
