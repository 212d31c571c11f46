"""Which blanks are judged, and what of them is exact, with a vocabulary of words."""

import numpy as np
import pytest

from switchx.evaluation import blanks

WORDS = ["<pad>", "</s>", "a", "list", "of", "the", "words", "and", "more"]
SENTINEL = 99  # <extra_id_0>; those of higher numbers are below it


class Words:
    size, eos_id, pad_id = 100, 1, 0

    def encode(self, text):
        return [WORDS.index(word) for word in text.split()]

    def decode(self, ids):
        ids = ids[: ids.index(1)] if 1 in ids else ids
        return " ".join(f"<extra_id_{SENTINEL - i}>" if i > 9 else WORDS[i] for i in ids if i)

    def sentinel_id(self, index):
        return SENTINEL - index


def batch(rows):
    inputs, targets = (np.array(part, np.int32) for part in zip(*rows, strict=True))
    weights = (targets > 0).astype(np.float32)
    return {
        "encoder_input_tokens": inputs,
        "decoder_target_tokens": targets,
        "decoder_loss_weights": weights,
    }


def row(number):
    """'a ___ of ___ words' with the number of the row in the first blank."""
    return [2, 99, 4, 98, 6, 1], [99, 2 + number % 7, 98, 5, 1, 0]


def test_the_rows_are_spread_over_all_batches():
    batches = [batch([row(4 * i + j) for j in range(4)]) for i in range(3)]
    asked = []

    def answers(rows):
        asked.extend(rows)
        return [[99, 2, 3, 98, 5, 1]] * len(rows)

    filled = blanks.fill(batches, Words(), answers, 4)
    assert len(asked) == 4
    truths = [WORDS[2 + number % 7] for number in (0, 3, 6, 9)]
    assert [found[0].truth for found in filled] == truths
    first, second = filled[0]
    assert (first.before, first.given, first.after) == ("a", "a list", "of … words")
    assert (second.given, second.is_exact, first.is_exact) == ("the", True, False)


def test_all_rows_where_there_are_fewer_than_wanted():
    empty = [0] * 6
    rows = [row(0), row(1), (empty, empty)]
    filled = blanks.fill([batch(rows)], Words(), lambda rows: [[1]] * len(rows), 64)
    assert [[blank.given for blank in found] for found in filled] == [["", ""], ["", ""]]
    assert blanks.fill([batch([(empty, empty)])], Words(), lambda rows: [], 64) == []


def test_bits_per_byte_are_of_the_text_in_the_blanks():
    factor = blanks.nats_to_bits_per_byte([batch([row(0), row(3)])], Words())
    text = len("a" + "the" + "the" + "the")  # spaces beside a sentinel are none of it
    assert factor == pytest.approx(10 / text / np.log(2))
