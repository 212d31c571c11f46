"""switchx data show: examples as the model gets them, and the text they were made of."""

import argparse
import itertools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from switchx.data import Batch, Vocabulary
    from switchx.settings.loading import Settings


def run(args: argparse.Namespace, settings: "Settings") -> None:
    """Prints the first training examples of a run."""
    from switchx import data

    data.preflight(settings.data)
    vocabulary = data.vocabulary(settings.data)
    stream = data.train_stream(settings.data)
    rows = (row for batch in stream for row in _rows(batch))
    for number, row in enumerate(itertools.islice(rows, args.count), start=1):
        for line in _lines(number, row, vocabulary):
            print(line)
    stream.close()


def _rows(batch: "Batch") -> list["Batch"]:
    rows = len(batch["decoder_target_tokens"])
    return [{name: x[row] for name, x in batch.items()} for row in range(rows)]


def _lines(number: int, row: "Batch", vocabulary: "Vocabulary") -> list[str]:
    lines = [f"example {number}"]
    for inputs, targets in examples_of(row):
        whole = filled_in(inputs, targets, vocabulary)
        shown = {"inputs": inputs, "targets": targets}
        if whole is not None:
            shown = {"text": whole} | shown
        width = max(map(len, shown))
        lines += [
            f"  {name:<{width}}  {len(tokens):>4} tokens  {vocabulary.decode(tokens)!r}"
            for name, tokens in shown.items()
        ]
    return lines


def examples_of(row: "Batch") -> list[tuple[list[int], list[int]]]:
    """The examples of a row, inputs and targets without padding; several where it is packed."""
    inputs_L, targets_L = row["encoder_input_tokens"], row["decoder_target_tokens"]
    is_real_L = row["decoder_loss_weights"] > 0
    input_segment_L = row.get("encoder_segment_ids", (inputs_L > 0).astype(np.int32))
    target_segment_L = row.get("decoder_segment_ids", is_real_L.astype(np.int32))
    return [
        (inputs_L[input_segment_L == n].tolist(), targets_L[target_segment_L == n].tolist())
        for n in range(1, int(target_segment_L.max(initial=0)) + 1)
    ]


def filled_in(inputs: list[int], targets: list[int], vocabulary: "Vocabulary") -> list[int] | None:
    """The text that was corrupted: each span in the place of its sentinel; None without any."""
    spans: dict[int, list[int]] = {}
    current: list[int] = []
    for token in targets:
        if token == vocabulary.sentinel_id(len(spans)):
            current = spans[token] = []
        elif token != vocabulary.eos_id:
            current.append(token)
    if not spans:
        return None
    whole: list[int] = []
    for token in inputs:
        whole += spans.get(token, [token])
    return whole
