"""Rows of several short examples: which, where, and the same ones again after a restart."""

import numpy as np

from switchx.data import eval_batches, train_stream, vocabulary

from ..conftest import digest, docs_config

TEXTS = [f"number {i} is followed by number {i + 1}" for i in range(7)]
LENGTHS = {"inputs": 100, "targets": 120}


def own_config(name="own_shouting", **changes):
    values = {"feature_lengths": LENGTHS, "task_module": "tests.data.own_tasks", "pack": True}
    return docs_config(mixture_or_task_name=name, **{**values, **changes})


def examples_in(batch):
    """(input, target) of each example of each row, checked to be numbered and begun alike."""
    rows = []
    for row in range(len(batch["encoder_segment_ids"])):
        at = {name: array[row] for name, array in batch.items()}
        count = at["encoder_segment_ids"].max()
        assert at["decoder_segment_ids"].max() == count
        rows.append([])
        for number in range(1, count + 1):
            own, own_target = (at[f"{s}_segment_ids"] == number for s in ("encoder", "decoder"))
            target = at["decoder_target_tokens"][own_target]
            assert at["decoder_input_tokens"][own_target].tolist() == [0, *target[:-1]]
            assert (at["decoder_loss_weights"][own_target] == 1).all()
            rows[-1].append((at["encoder_input_tokens"][own], target))
        for part, tokens in (("encoder", "input_tokens"), ("decoder", "target_tokens")):
            assert not at[f"{part}_{tokens}"][at[f"{part}_segment_ids"] == 0].any()
    return rows


def packed(lengths):
    """How many of these examples, (input, target) tokens, each row holds: as many as fit."""
    rows, room = [], (-1, -1)
    for inputs, targets in lengths:
        if inputs > room[0] or targets > room[1]:
            rows, room = [*rows, 0], tuple(LENGTHS.values())
        rows[-1], room = rows[-1] + 1, (room[0] - inputs, room[1] - targets)
    return rows


def test_rows_hold_whole_examples_in_their_order():
    config = own_config(batch_size=3)
    (batch,) = eval_batches(config)
    assert {name: (x.shape, str(x.dtype)) for name, x in batch.items()} == {
        "encoder_input_tokens": ((3, 100), "int32"),
        "encoder_segment_ids": ((3, 100), "int32"),
        "decoder_input_tokens": ((3, 120), "int32"),
        "decoder_target_tokens": ((3, 120), "int32"),
        "decoder_segment_ids": ((3, 120), "int32"),
        "decoder_loss_weights": ((3, 120), "float32"),
    }
    words, rows = vocabulary(config), examples_in(batch)
    found = [tuple(map(words.decode, example)) for row in rows for example in row]
    expected = [(text, text.upper()) for text in TEXTS]
    assert found == expected
    lengths = [(len(i.encode()) + 1, len(t.encode()) + 1) for i, t in expected]
    assert [len(row) for row in rows] == packed(lengths) == [3, 3, 1]


def test_an_example_with_an_empty_side_shifts_no_other():
    config = own_config("own_with_gaps", batch_size=1)
    (batch,) = eval_batches(config)
    words = vocabulary(config)
    found = [tuple(map(words.decode, example)) for example in examples_in(batch)[0]]
    assert found == [("one", "ONE"), ("two", "TWO"), ("three", "THREE")]


def test_a_restart_goes_on_with_the_same_rows():
    config = own_config("own_mixture")
    stream = train_stream(config)
    states, expected = {}, []
    for step in range(24):  # tasks have 50 examples each; packing takes 120 at a time
        if step in (1, 17):
            states[step] = stream.state()
        expected.append(digest(next(stream)))
    assert len(set(expected)) == 24
    for step, state in states.items():
        again = train_stream(config)
        again.restore(state)
        assert [digest(next(again)) for _ in range(7)] == expected[step : step + 7]


def test_rows_are_well_filled():
    stream = train_stream(own_config(feature_lengths={"inputs": 256, "targets": 256}))
    filled = [np.mean(next(stream)["encoder_segment_ids"] > 0) for _ in range(20)]
    assert np.mean(filled) > 0.8  # seven of at most 36 tokens
